"""Renewing evidence: images are verified, their records go under a newer hash and on chain, bundles are written with that."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ledger.chain import Ledger
from ledger.core import content, contracts, evidence, merkle, renewal
from ledger.core.content import Finder
from ledger.core.errors import FixInput, LedgerDisagrees, Refused, Unreadable
from ledger.core.evidence import Bundle, Renewal, Renewed, Seal, State
from ledger.core.proof import ProvenState
from ledger.core.search import Evidence, Subject
from ledger.core.stateproof import parse_header
from ledger.core.trust import Facts, Trust
from ledger.core.verdict import SEVERITY, Token, Verdict
from ledger.core.verify import not_checked, verify
from ledger.wiring.bundles import read_bundle
from ledger.wiring.export import replace
from ledger.wiring.images import Found, WithoutPixels, subject
from ledger.wiring.verification import hashes_of

IN_ORDER = (Token.AUTHENTIC, Token.DERIVED, Token.DECLARED_SYNTHETIC)
POLL_S = 0.25
NOT_FINAL = 4
"""Exit code of a run that ended before its batch was final."""


@dataclass
class Report:
    """What a run did. `rows`: (path, verdict, whether it was renewed `now`, `before` or, being not in order, not at all)."""

    rows: list[tuple[str, Verdict, str | None]] = field(default_factory=list)
    records: int = 0
    block: int | None = None
    block_time: int | None = None
    files: int = 0
    reached: bool = True

    @property
    def exit_code(self) -> int:
        """Of the worst image that was not renewed; 4 where the chain did not get far enough."""
        codes = [verdict.exit_code for _, verdict, renewed in self.rows if renewed is None]
        return min([*codes, 0 if self.reached else NOT_FINAL], key=SEVERITY.index)

    def as_json(self) -> dict[str, Any]:
        images = [
            {"path": path, "verdict": verdict.token, "renewed": renewed, "reasons": list(verdict.reasons)}
            for path, verdict, renewed in self.rows
        ]
        batch = {"records": self.records, "block": self.block, "block_time": self.block_time, "final": self.reached}
        return {"exit_code": self.exit_code, "batch": batch, "files": self.files, "images": images}


class Renewing:
    """Renews the evidence of images, whoever sealed them, in a log of this account."""

    def __init__(
        self, trust: Trust, ledger: Ledger, let_time_pass: Callable[[], None], believe: Callable[[bytes], None]
    ) -> None:
        """`believe` puts the header (RLP) of a block that this account saw final into a trust file."""
        self._trust, self._ledger = trust, ledger
        self._let_time_pass, self._believe = let_time_pass, believe

    def renew(
        self, images: Iterable[Found], files: Sequence[tuple[Path, Path]], timeout_s: float, say: Callable[[int], None]
    ) -> Report:
        """Renews what the bundles say of each image, and writes each bundle to where it is to go: `files` are (from, to).

        Only evidence that is in order is renewed. A run can be repeated, after a crash at any point, too: what was renewed
        before is left as it is, and a batch that is on chain already is not sent again.
        """
        self._check_time()
        bundles = [_newest(source, target) for source, target in files]
        batch = _Batch(bundles, self._trust, self._facts(bundles))
        report = Report()
        for count, found in enumerate(images, 1):
            say(count)
            with suppress(WithoutPixels):
                report.rows.append((found.path, *batch.add(found)))
        leaves = batch.leaves()
        report.records = len(leaves)
        anchored = self._anchored(leaves, time.monotonic() + timeout_s) if leaves else None
        if leaves and anchored is None:
            report.reached = False
            return report
        if anchored is not None:
            report.block, report.block_time = anchored[0].block_number, anchored[0].block_time
        for number, (_, target) in enumerate(files):
            renewed = bundles[number] if anchored is None else batch.renewed(number, *anchored)
            if renewed.renewals and (renewed is not bundles[number] or not target.exists()):
                replace(target, evidence.write(renewed))
                report.files += 1
        return report

    def _check_time(self) -> None:
        fell = self._trust.fell_at("sha256")
        if fell is not None and self._ledger.beacon().header.timestamp >= fell:
            raise FixInput("SHA-256 has fallen by the trust file: what is renewed from now on proves nothing any more")

    def _facts(self, bundles: Sequence[Bundle]) -> Facts:
        """What the chain says of all these bundles' blocks and keys, asked once."""
        blocks = {parse_header(state.header).number for bundle in bundles for state in bundle.states}
        keys = {entry.record.key for bundle in bundles for entry in bundle.entries}
        return self._ledger.facts(sorted(blocks), sorted(keys), ())

    def _anchored(self, leaves: Sequence[bytes], deadline: float) -> tuple[Renewal, State] | None:
        """The batch on chain with its proof; None where it is not final in time. Sent only if it is not there."""
        log = self._ledger.open_log(renewal.LOG)
        root, count = merkle.root_of(leaves, renewal.HASH), len(leaves)
        size = self._ledger.anchored_size(log)
        while True:
            part = self._on_chain(log, root, size, count)
            if part is None:
                head = self._ledger.anchored_size(log)
                self._ledger.anchor(log, head, head + count, root, ())
                size = head + count
                continue
            seen = self._ledger.sighting(log, size)
            if seen is not None and seen.state == "final":
                break
            if time.monotonic() > deadline:
                return None
            self._let_time_pass()
            time.sleep(POLL_S)
        state = self._ledger.proof(log, size, ())
        stored = ProvenState(state.header, state.nodes).word(self._trust.anchor_log, contracts.anchor_slot(log, size))
        if stored.to_bytes(32, "big") != _commitment(root, part):
            raise LedgerDisagrees("the node's proof shows another renewal than its events do: run `scanseal renew` again")
        self._believe(state.header)
        return part, state

    def _on_chain(self, log: bytes, root: bytes, size: int, count: int) -> Renewal | None:
        """The anchor for `size`, if it is that of this batch."""
        seen = self._ledger.sighting(log, size) if size >= count else None
        if seen is None or seen.beacons:
            return None
        part = Renewal(
            hash=renewal.HASH,
            log_id=log,
            old_size=size - count,
            new_size=size,
            block_number=seen.block_number,
            block_time=seen.block_time,
            state=0,
        )
        stored = self._ledger.latest(sizes=[(log, size)]).anchors[log, size]
        return part if stored == _commitment(root, part) else None


def _commitment(root: bytes, part: Renewal) -> bytes:
    return contracts.anchor_commitment(root, part.old_size, part.block_number, part.block_time, ())


def _newest(source: Path, target: Path) -> Bundle:
    """A bundle, or what an earlier run made of it. Raises FixInput where something else is in its way."""
    bundle = read_bundle(source)
    if not target.exists():
        return bundle
    done = read_bundle(target)
    same = evidence.write(renewal.without_renewals(done)) == evidence.write(renewal.without_renewals(bundle))
    if not same or not set(bundle.renewals) <= set(done.renewals):
        raise FixInput(f"{target} exists and is not {source.name} renewed: it is not overwritten")
    return done


class _Batch:
    """What is to be renewed of some bundles: image after image is added, then its leaves are anchored."""

    def __init__(self, bundles: Sequence[Bundle], trust: Trust, facts: Facts) -> None:
        # That SHA-256 is going to fall is why this runs, and no reason to doubt anything yet.
        standing = tuple(one for one in trust.fallen if one.algorithm != "sha256")
        self._trust = trust.model_copy(update={"fallen": standing})
        self._bundles, self._facts = bundles, facts
        self._evidence: dict[int, Evidence] = {}
        self._positions: dict[int, dict[bytes, list[int]]] = {}
        self._index = _index(bundles)
        self._hashes = hashes_of(
            [
                f"px1-{renewal.HASH}",
                "px1-sha256",
                *(seal.record.profile.partition("/")[0] for one in bundles for seal in one.seals),
            ]
        )
        self._images: dict[int, dict[int, set[bytes]]] = {}
        self._leaves: dict[int, dict[int, list[tuple[bytes, bytes | None]]]] = {}
        self._paths: dict[bytes, tuple[int, bytes]] = {}

    def add(self, found: Found) -> tuple[Verdict, str | None]:
        """The verdict of an image, and whether its evidence is to be renewed `now`, was `before`, or not at all. Raises
        WithoutPixels for what is no image, and was found in a folder."""
        try:
            image = subject(found, self._hashes)
            judged = [(number, verify(image, self._of(number))) for number in self._holding(image)]
        except (Unreadable, Refused) as error:
            if isinstance(error, WithoutPixels) and not found.named:
                raise
            return not_checked(str(error)), None
        except OSError as error:
            return not_checked(f"cannot be read ({error.strerror})"), None
        good = [(number, verdict) for number, verdict in judged if verdict.token in IN_ORDER]
        if not good:
            bad = [verdict for _, verdict in judged if verdict.token is not Token.UNREGISTERED or verdict.record_id]
            return (bad[0] if bad else Verdict(Token.UNREGISTERED, ("its evidence is in none of the bundles",))), None
        is_new = [self._add(number, verdict, image) for number, verdict in good]
        return good[0][1], "now" if any(is_new) else "before"

    def _holding(self, image: Subject) -> Sequence[int]:
        """The bundles that may have an image's evidence: by their tokens, else all of them."""
        asked = [(content.PIXELS, str(digest)) for digest in image.digests.values()]
        asked += [("SOPInstanceUID", image.instance)] if image.instance else []
        hits = {
            number
            for finder, tokens in self._index
            for item, value in asked
            for number in tokens.get(finder.token(item, value), ())
        }
        return sorted(hits) or range(len(self._bundles))

    def _of(self, number: int) -> Evidence:
        if number not in self._evidence:
            self._evidence[number] = Evidence((self._bundles[number],), self._trust, self._facts)
        return self._evidence[number]

    def _add(self, number: int, verdict: Verdict, image: Subject) -> bool:
        """Adds an image's record, and all that are part of its custody; whether one of them is new."""
        bundle = self._bundles[number]
        if number not in self._positions:
            positions: dict[bytes, list[int]] = {}
            for at, entry in enumerate(bundle.entries):
                positions.setdefault(entry.record.value.id(self._trust.domain), []).append(at)
            self._positions[number] = positions
        is_new = False
        for record_id in {step.record_id for step in verdict.custody if step.record_id is not None}:
            for at in self._positions[number][record_id]:
                is_its = record_id == verdict.record_id and at < len(bundle.seals)
                says = renewal.image_hashes(bundle.seals[at], image) if is_its else []
                is_new |= self._add_record(number, at, says[:1])
        return is_new

    def _add_record(self, number: int, at: int, images: Sequence[bytes]) -> bool:
        entry = self._bundles[number].entries[at]
        known = {one.image for one in entry.renewed or ()}
        if entry.included is None or (known and known.issuperset(images)):
            return False
        self._images.setdefault(number, {}).setdefault(at, set()).update(images)
        return True

    def leaves(self) -> list[bytes]:
        """The leaf hashes of the batch, in the one order that the same records always have."""
        for number, images in self._images.items():
            self._leaves[number] = {at: self._leaves_of(number, at, said) for at, said in images.items()}
        found = sorted({leaf for entries in self._leaves.values() for leaves in entries.values() for leaf, _ in leaves})
        paths = merkle.inclusion_paths(found, renewal.HASH)
        self._paths = {leaf: (index, b"".join(path)) for index, (leaf, path) in enumerate(zip(found, paths, strict=True))}
        return found

    def _leaves_of(self, number: int, at: int, images: set[bytes]) -> list[tuple[bytes, bytes | None]]:
        proofs, entry = self._of(number).proofs(0), self._bundles[number].entries[at]
        hashed = renewal.evidence_hash(entry, *renewal.around(proofs, entry))
        opening = renewal.opening_hash(entry) if isinstance(entry, Seal) else None
        said: list[bytes | None] = [*sorted(images)] or [None]
        return [(renewal.leaf_hash(hashed, opening, image), image) for image in said]

    def renewed(self, number: int, part: Renewal, state: State) -> Bundle:
        """A bundle with what this batch renewed of it; the same one where that is nothing."""
        bundle = self._bundles[number]
        if number not in self._leaves:
            return bundle
        entries = list(bundle.entries)
        for at, leaves in self._leaves[number].items():
            fresh = []
            for leaf, image in leaves:
                index, path = self._paths[leaf]
                fresh.append(Renewed(renewal=len(bundle.renewals), index=index, path=path, image=image))
            entries[at] = entries[at].model_copy(update={"renewed": (*(entries[at].renewed or ()), *fresh)})
        count = len(bundle.seals)
        return bundle.model_copy(
            update={
                "seals": tuple(entries[:count]),
                "records": tuple(entries[count:]),
                "renewals": (*bundle.renewals, part.model_copy(update={"state": len(bundle.states)})),
                "states": (*bundle.states, state),
            }
        )


def _index(bundles: Sequence[Bundle]) -> list[tuple[Finder, dict[bytes, list[int]]]]:
    """For each study, what makes its look-up tokens, and token -> numbers of the bundles that have it."""
    studies: dict[bytes, dict[bytes, list[int]]] = {}
    for number, bundle in enumerate(bundles):
        for seal in bundle.seals:
            tokens = studies.setdefault(bundle.studies[seal.study], {})
            for token in seal.tokens:
                tokens.setdefault(token, []).append(number)
    return [(Finder(key), tokens) for key, tokens in studies.items()]
