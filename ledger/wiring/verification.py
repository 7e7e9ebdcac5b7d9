"""Verifying files: finds the evidence of each image, asks the chain what is new, and lets `ledger.core.verify` judge."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ledger.core.errors import LedgerDisagrees, LedgerUnavailable, Refused, ScanSealError, Unreadable
from ledger.core.evidence import Bundle
from ledger.core.search import Evidence, Subject, claimed_device
from ledger.core.trust import Facts, Trust
from ledger.core.verdict import OUT_OF_REACH, Token, Verdict
from ledger.core.verify import not_checked, verify
from ledger.store.records import RecordReader
from ledger.wiring.bundles import Exporter
from ledger.wiring.images import Digests, Found, WithoutPixels, subject
from ledger.wiring.keeping import RECORDS_KEPT, Beside, Kept, weight

CHUNK = 64
"""Images verified together: one round of questions to the chain for all of them."""
TILES_KEPT = 1 << 17
"""Tile hashes in memory at once, of some 80 bytes each: with more, fewer images are verified together."""


class Oracle(Protocol):
    """Who knows what the chain says today. Raises LedgerUnavailable, LedgerDisagrees."""

    def facts(self, blocks: Sequence[int], keys: Sequence[bytes], devices: Sequence[bytes]) -> Facts: ...


class Finder(Protocol):
    """Who knows where else evidence of images is."""

    def named(self, path: str, subject: Subject) -> tuple[str, ...]:
        """What the evidence of an image is called."""

    def load(self, name: str) -> Bundle:
        """The evidence of that name. Raises ScanSealError where it cannot be used."""


class Elsewhere(Protocol):
    """Who keeps evidence that whoever has an image can find."""

    def found(self, subject: Subject) -> tuple[tuple[Bundle, ...], str | None]:
        """The evidence of an image, and what is wrong with some that cannot be used. Raises ScanSealError where nobody
        answers."""


@dataclass(frozen=True)
class Result:
    """One verified image; `subject` and `found` are None where it could not be read. `without_pixels`: it is no image at all (a
    report, a plan) and was found in a folder or an archive, so that NOT_CHECKED is no failure."""

    path: str
    verdict: Verdict
    subject: Subject | None
    without_pixels: bool = False
    found: Found | None = None


class Verifier:
    """Verifies images against one trust file.

    Evidence comes from the `bundles` that were named, from `*.seal.json` beside each file, from a site's store, and from where
    a `finder` knows more. Only for an image of which all this knows nothing is it asked for `elsewhere`.
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
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._trust, self._bundles, self._site, self._oracle = trust, tuple(bundles), site, oracle
        self._finder, self._elsewhere = finder, elsewhere
        self._named, self._beside = Evidence(self._bundles, trust), Beside()
        self._offline = _Shared(trust, Facts()) if oracle is None else None
        self._hashes = hashes_of([*self._named.profiles(), *(site[0].profiles() if site else ()), *profiles, "px1-sha256"])
        if trust.fell_at("sha256") is not None:
            self._hashes |= {"blake3"}

    def verify(self, images: Iterable[Found], together: int = CHUNK) -> Iterator[Result]:
        """A result for each image, in order, in flat memory.

        Of up to `together` images at a time those with the same named evidence are judged one after the other, so that it is
        read once for all of them, in whatever order they come.
        """
        chunk: list[tuple[Found, _Read | Result]] = []
        tiles = 0
        for found in images:
            read = self._read(found)
            chunk.append((found, read))
            tiles += read.tiles if isinstance(read, _Read) else 0
            if len(chunk) == together or tiles > TILES_KEPT:
                yield from self._results(chunk)
                chunk, tiles = [], 0
        yield from self._results(chunk)

    def _results(self, chunk: Sequence[tuple[Found, _Read | Result]]) -> Iterator[Result]:
        groups: dict[tuple[str, ...], dict[int, _Read]] = {}
        for place, (_, read) in enumerate(chunk):
            if isinstance(read, _Read):
                groups.setdefault(read.named, {})[place] = read
        verdicts: dict[int, Verdict] = {}
        for named, group in groups.items():
            verdicts |= zip(group, self._verdicts(*self._loaded(named), list(group.values())), strict=True)
        for place, (found, read) in enumerate(chunk):
            yield Result(found.path, verdicts[place], read.subject, found=found) if isinstance(read, _Read) else read

    def _loaded(self, named: Sequence[str]) -> tuple[tuple[Bundle, ...], str | None]:
        """The bundles of these names, and what is wrong with one that cannot be used."""
        bundles: list[Bundle] = []
        damage = None
        for name in named:
            try:
                bundles += [] if self._finder is None else [self._finder.load(name)]
            except ScanSealError as error:
                damage = str(error)
        return tuple(bundles), damage

    def _verdicts(self, named: Sequence[Bundle], damage: str | None, group: Sequence[_Read]) -> list[Verdict]:
        """Of images that have the same named evidence."""
        try:
            stored = self._stored([read.subject for read in group])
            facts = self._facts(group, (*named, *stored))
        except (LedgerUnavailable, LedgerDisagrees) as error:
            return [not_checked(str(error), OUT_OF_REACH)] * len(group)
        shared = self._offline or _Shared(self._trust, facts)
        return [self._judge(read, shared, named, stored, damage) for read in group]

    def _judge(
        self, read: _Read, shared: _Shared, named: Sequence[Bundle], stored: Sequence[Bundle], damage: str | None
    ) -> Verdict:
        verdict = shared.judge(read, (*named, *self._bundles, *stored), damage)
        if self._elsewhere is not None and verdict.token in (Token.UNREGISTERED, Token.STRIPPED):
            return self._judge_elsewhere(self._elsewhere, read, verdict, (*named, *stored), damage)
        if verdict.token is not Token.ALTERED or verdict.regions or self._site is None:
            return verdict
        # Only an altered image needs the sealed tile hashes, which are large.
        with_tiles = self._stored([read.subject], with_tiles=True)
        return shared.judge(read, (*named, *self._bundles, *with_tiles), damage)

    def _judge_elsewhere(
        self, elsewhere: Elsewhere, read: _Read, verdict: Verdict, known: Sequence[Bundle], damage: str | None
    ) -> Verdict:
        """Of an image that was never registered as far as is known here. Who cannot be asked changes no verdict to another one:
        the image is not checked."""
        try:
            more, unusable = elsewhere.found(read.subject)
            if not more and unusable is None:
                return verdict
            facts = self._facts([read], (*known, *more))
        except ScanSealError as error:
            return not_checked(f"whether evidence was left elsewhere could not be asked: {error}", OUT_OF_REACH)
        shared = self._offline or _Shared(self._trust, facts)
        return shared.judge(read, (*known, *self._bundles, *more), damage or unusable)

    def _read(self, found: Found) -> _Read | Result:
        """The image and the bundles beside it, or the result that it cannot be read."""
        beside, profiles, damage = self._beside.of(found.path)
        try:
            read = subject(found, self._hashes | hashes_of(profiles))
            named = () if self._finder is None else self._finder.named(found.path, read)
            return _Read(read, beside, damage, named)
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

    def _facts(self, read: Sequence[_Read], more: Sequence[Bundle]) -> Facts:
        if self._oracle is None:
            return Facts()
        bundles = {id(bundle): bundle for part in read for bundle in part.beside}
        evidence = Evidence((*self._bundles, *bundles.values(), *more), self._trust)
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
            if device is not None and all(evidence.has_gateway(number) for number, _ in candidates):
                devices.add(device)
        return self._oracle.facts(sorted(blocks), sorted(keys), sorted(devices))


@dataclass(frozen=True)
class _Read:
    """An image as read, the bundles beside it and what is wrong with one, and the names of more evidence."""

    subject: Subject
    beside: tuple[Bundle, ...]
    damage: str | None
    named: tuple[str, ...]

    @property
    def stopped(self) -> str | None:
        """Why the pixels could not be decoded to the end, if so: then no record found means nothing."""
        return self.subject.digests.stopped if isinstance(self.subject.digests, Digests) else None

    @property
    def tiles(self) -> int:
        """Tile hashes that it keeps in memory."""
        digests = self.subject.digests
        return sum(len(frame) for profile in digests if profile in digests for frame in digests[profile].tiles)


class _Shared:
    """Judges images under one set of facts, keeping the proofs of a set of bundles for the next image with the same set."""

    def __init__(self, trust: Trust, facts: Facts) -> None:
        self._trust, self._facts = trust, facts
        self._evidence: Kept[Evidence] = Kept(RECORDS_KEPT)

    def judge(self, read: _Read, common: Sequence[Bundle], damage: str | None) -> Verdict:
        bundles = (*read.beside, *common)
        # No other bundle has the id of one that is kept with its evidence.
        names = tuple(id(bundle) for bundle in bundles)
        evidence = self._evidence.get(
            names, lambda: Evidence(bundles, self._trust, self._facts), lambda made: sum(map(weight, made.bundles))
        )
        verdict = verify(read.subject, evidence)
        damage = read.damage or damage
        if damage is not None and verdict.token in (Token.UNREGISTERED, Token.STRIPPED):
            return not_checked(f"evidence beside the image proves nothing: {damage}")
        if read.stopped is not None and verdict.token in (Token.UNREGISTERED, Token.STRIPPED):
            return not_checked(read.stopped)
        return verdict


def hashes_of(profiles: Iterable[str]) -> frozenset[str]:
    """The hashes that these digest profiles use."""
    return frozenset(profile.partition("-")[2] for profile in profiles)
