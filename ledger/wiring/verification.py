"""Verifying files: finds the evidence of each image, asks the chain what is new, and lets `ledger.core.verify` judge."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Protocol

from ledger.core.errors import EvidenceInvalid, LedgerDisagrees, LedgerUnavailable, Refused, ScanSealError, Unreadable
from ledger.core.evidence import Bundle
from ledger.core.search import Evidence, Subject, claimed_device
from ledger.core.trust import Facts, Trust
from ledger.core.verdict import OUT_OF_REACH, Token, Verdict
from ledger.core.verify import not_checked, verify
from ledger.store.records import RecordReader
from ledger.wiring.bundles import SUFFIX, Exporter, read_bundle
from ledger.wiring.images import Digests, Found, WithoutPixels, subject

KEPT = 16
"""Sets of bundles whose proofs are kept."""
CHUNK = 64
"""Images verified together: one round of questions to the chain for all of them."""


class Oracle(Protocol):
    """Who knows what the chain says today. Raises LedgerUnavailable, LedgerDisagrees."""

    def facts(self, blocks: Sequence[int], keys: Sequence[bytes], devices: Sequence[bytes]) -> Facts: ...


Finder = Callable[[str, Subject], tuple[tuple[Bundle, ...], str | None]]
"""Where else evidence of an image is: (bundles, what is wrong with one that cannot be used)."""


@dataclass(frozen=True)
class Result:
    """One verified image; `subject` is None where it could not be read. `without_pixels`: it is no image at all (a report, a
    plan) and was found in a folder or an archive, so that NOT_CHECKED is no failure."""

    path: str
    verdict: Verdict
    subject: Subject | None
    without_pixels: bool = False


class Verifier:
    """Verifies images against one trust file.

    Evidence comes from the `bundles` that were named, from `*.seal.json` beside each file, from a site's store, and from where
    a `finder` knows more.
    Without an `oracle` nothing is asked: the trust file alone decides, and no socket is opened.
    """

    def __init__(
        self,
        trust: Trust,
        bundles: Sequence[Bundle] = (),
        site: tuple[RecordReader, Exporter] | None = None,
        oracle: Oracle | None = None,
        finder: Finder | None = None,
        profiles: Sequence[str] = (),
    ) -> None:
        self._trust, self._bundles, self._site, self._oracle = trust, tuple(bundles), site, oracle
        self._finder = finder
        self._named = Evidence(self._bundles, trust)
        self._offline = _Shared(trust, Facts()) if oracle is None else None
        self._hashes = hashes_of([*self._named.profiles(), *(site[0].profiles() if site else ()), *profiles, "px1-sha256"])
        if trust.fell_at("sha256") is not None:
            self._hashes |= {"blake3"}

    def verify(self, images: Iterable[Found]) -> Iterator[Result]:
        """A result for each image, in order, in flat memory."""
        iterator = iter(images)
        while chunk := list(islice(iterator, CHUNK)):
            yield from self._verify_chunk(chunk)

    def _verify_chunk(self, chunk: Sequence[Found]) -> list[Result]:
        read = [self._read(found) for found in chunk]
        subjects = [part for part in read if isinstance(part, _Read)]
        try:
            stored = self._stored([part.subject for part in subjects])
            facts = self._facts(subjects, stored)
        except (LedgerUnavailable, LedgerDisagrees) as error:
            failed = not_checked(str(error), OUT_OF_REACH)
            return [
                Result(found.path, failed, part.subject) if isinstance(part, _Read) else part
                for found, part in zip(chunk, read, strict=True)
            ]
        shared = self._offline or _Shared(self._trust, facts)
        return [
            Result(found.path, self._judge(part, shared, stored), part.subject) if isinstance(part, _Read) else part
            for found, part in zip(chunk, read, strict=True)
        ]

    def _judge(self, read: _Read, shared: _Shared, stored: Sequence[Bundle]) -> Verdict:
        verdict = shared.judge(read, (*self._bundles, *stored))
        if verdict.token is not Token.ALTERED or verdict.regions:
            return verdict
        # Only an altered image needs the sealed tile hashes, which are large.
        return shared.judge(read, (*self._bundles, *self._stored([read.subject], with_tiles=True)))

    def _read(self, found: Found) -> _Read | Result:
        """The image and the bundles beside it, or the result that it cannot be read."""
        beside, damage = bundles_beside(found.path)
        hashes = self._hashes | hashes_of(seal.record.profile.partition("/")[0] for bundle in beside for seal in bundle.seals)
        try:
            read = subject(found, hashes)
            if self._finder is not None:
                more, missing = self._finder(found.path, read)
                beside, damage = (*beside, *more), damage or missing
            return _Read(read, beside, damage)
        except WithoutPixels as error:
            return Result(found.path, not_checked(str(error)), None, without_pixels=not found.named)
        except (Unreadable, Refused) as error:
            return Result(found.path, not_checked(str(error)), None)
        except ScanSealError:
            raise
        except OSError as error:
            return Result(found.path, not_checked(f"cannot be read ({error.strerror})"), None)

    def _stored(self, subjects: Sequence[Subject], *, with_tiles: bool = False) -> tuple[Bundle, ...]:
        """The site's own seals of these images, as one bundle."""
        if self._site is None:
            return ()
        journal, exporter = self._site
        seals = {
            stored.number: stored
            for one in subjects
            for stored in journal.find([str(digest) for digest in one.digests.values()], one.instance)
            if stored.image_key is not None
        }
        return (exporter.bundle(seals.values(), with_tiles=with_tiles),) if seals else ()

    def _facts(self, read: Sequence[_Read], stored: Sequence[Bundle]) -> Facts:
        if self._oracle is None:
            return Facts()
        bundles = {id(bundle): bundle for part in read for bundle in part.beside}
        evidence = Evidence((*self._bundles, *bundles.values(), *stored), self._trust)
        blocks: set[int] = set()
        keys: set[bytes] = set()
        devices: set[bytes] = set()
        for part in read:
            candidates = list(evidence.candidates(part.subject))
            for number, seal in candidates:
                keys.add(seal.record.key)
                blocks.add(seal.record.beacon_number)
                renewals = (evidence.state_block(number, one.state) for one in evidence.bundles[number].renewals)
                blocks.update(block for block in renewals if block is not None)
                if seal.included is not None:
                    state = evidence.bundles[number].anchors[seal.included.anchor].state
                    block = evidence.state_block(number, state)
                    blocks.update(() if block is None else (block,))
            device = claimed_device(part.subject)
            if not candidates and device is not None:
                devices.add(device)
        return self._oracle.facts(sorted(blocks), sorted(keys), sorted(devices))


@dataclass(frozen=True)
class _Read:
    subject: Subject
    beside: tuple[Bundle, ...]
    damage: str | None

    @property
    def stopped(self) -> str | None:
        """Why the pixels could not be decoded to the end, if so: then no record found means nothing."""
        return self.subject.digests.stopped if isinstance(self.subject.digests, Digests) else None


class _Shared:
    """Judges images under one set of facts, keeping the proofs of a set of bundles for the next image with the same set."""

    def __init__(self, trust: Trust, facts: Facts) -> None:
        self._trust, self._facts = trust, facts
        self._evidence: dict[tuple[int, ...], Evidence] = {}

    def judge(self, read: _Read, common: Sequence[Bundle]) -> Verdict:
        bundles = (*read.beside, *common)
        names = tuple(id(bundle) for bundle in bundles)
        if names not in self._evidence:
            if len(self._evidence) == KEPT:
                self._evidence.pop(next(iter(self._evidence)))
            self._evidence[names] = Evidence(bundles, self._trust, self._facts)
        verdict = verify(read.subject, self._evidence[names])
        if read.damage is not None and verdict.token in (Token.UNREGISTERED, Token.STRIPPED):
            return not_checked(f"evidence beside the image proves nothing: {read.damage}")
        if read.stopped is not None and verdict.token in (Token.UNREGISTERED, Token.STRIPPED):
            return not_checked(read.stopped)
        return verdict


def bundles_beside(path: str) -> tuple[tuple[Bundle, ...], str | None]:
    """The evidence next to an image file or an archive: `<name>.seal.json`, else all `*.seal.json` of its folder; and what
    is wrong with a
    bundle that cannot be used."""
    place = Path(path.partition("!/")[0])
    own = place.with_name(place.name + SUFFIX)
    files = (own,) if own.is_file() else _seal_files(str(place.parent))
    bundles: list[Bundle] = []
    damage = None
    for file in files:
        try:
            bundles.append(_cached_bundle(str(file), file.stat().st_mtime_ns))
        except (EvidenceInvalid, Unreadable) as error:
            damage = str(error)
    return tuple(bundles), damage


@lru_cache(maxsize=64)
def _seal_files(folder: str) -> tuple[Path, ...]:
    try:
        return tuple(sorted(Path(folder).glob(f"*{SUFFIX}")))
    except OSError:
        return ()


@lru_cache(maxsize=256)
def _cached_bundle(path: str, changed: int) -> Bundle:  # noqa: ARG001 - part of the cache's key
    return read_bundle(Path(path))


def hashes_of(profiles: Iterable[str]) -> frozenset[str]:
    """The hashes that these digest profiles use."""
    return frozenset(profile.partition("-")[2] for profile in profiles)
