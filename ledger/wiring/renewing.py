"""Renewing evidence: verifies images, puts their evidence under a newer hash into a renewal log, and writes it back renewed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ledger.chain import Ledger
from ledger.core import contracts, evidence, merkle, renewal
from ledger.core.errors import EvidenceInvalid, FixInput, LedgerDisagrees, TryLater
from ledger.core.evidence import BeaconPart, Bundle, Renewed, State
from ledger.core.proof import ProvenState
from ledger.core.trust import Block, RenewalLog, Trust
from ledger.core.verdict import Token
from ledger.log.anchoring import Sighting
from ledger.wiring import site as sites
from ledger.wiring.export import replace
from ledger.wiring.images import Found
from ledger.wiring.site import Site
from ledger.wiring.verification import Verifier

IN_ORDER = (Token.AUTHENTIC, Token.DERIVED, Token.DECLARED_SYNTHETIC)
POLL_S = 0.25


@dataclass(frozen=True)
class Renewal:
    """What a run did; `refused` are images with why they were not renewed."""

    renewed: int
    before: int
    refused: tuple[tuple[str, str], ...]
    block: int | None
    files: int


@dataclass(frozen=True)
class _Leaf:
    bundle: int
    seal: int
    hash: bytes


class Renewing:
    """One site renewing the evidence of images."""

    def __init__(self, site: Site, trust: Trust, ledger: Ledger, let_time_pass: Callable[[], None]) -> None:
        self._site, self._trust, self._ledger, self._let_time_pass = site, trust, ledger, let_time_pass

    def renew(
        self,
        verifier: Verifier,
        images: Iterable[Found],
        bundles: Sequence[tuple[Path, Bundle]],
        output: Path,
        timeout_s: float,
    ) -> Renewal:
        """Renews each image's evidence and writes the bundles it lies in to the folder `output`, under their names.

        Only evidence that is in order now is renewed. A run can be repeated: what is renewed already is left as it is.
        """
        if output.exists() and not output.is_dir():
            raise FixInput(f"{output} is a file: the renewed bundles go into a folder")
        places = self._places(bundles)
        leaves: dict[bytes, _Leaf] = {}
        refused: list[tuple[str, str]] = []
        before = 0
        for result in verifier.verify(images):
            verdict = result.verdict
            if verdict.token not in IN_ORDER or verdict.record_id is None or result.subject is None:
                refused.append((result.path, f"{verdict.token}: {'; '.join(verdict.reasons)}"))
                continue
            place = places.get(verdict.record_id)
            if place is None:
                refused.append((result.path, "its evidence is in none of the named bundles"))
                continue
            bundle, seal = bundles[place[0]][1], bundles[place[0]][1].seals[place[1]]
            if seal.renewals:
                before += 1
                continue
            try:
                data = renewal.leaf(bundle, seal, result.subject)
            except EvidenceInvalid as error:
                refused.append((result.path, str(error)))
                continue
            leaves[verdict.record_id] = _Leaf(*place, renewal.leaf_hash(data))
        if not leaves:
            return Renewal(0, before, tuple(refused), None, 0)
        order = list(leaves.values())
        log_id = self._log()
        seen, old_size, state = self._anchored(log_id, [one.hash for one in order], time.monotonic() + timeout_s)
        files = self._write(bundles, order, log_id, old_size, seen, state, output)
        return Renewal(len(order), before, tuple(refused), seen.block_number, files)

    def _places(self, bundles: Sequence[tuple[Path, Bundle]]) -> dict[bytes, tuple[int, int]]:
        """record id -> (bundle, seal)."""
        domain = self._trust.domain
        return {
            seal.record.value.id(domain): (number, place)
            for number, (_, bundle) in enumerate(bundles)
            for place, seal in enumerate(bundle.seals)
        }

    def _log(self) -> bytes:
        """The site's renewal log, opened and named in its trust file."""
        log_id = self._ledger.open_log(renewal.LABEL)
        trust = self._site.trust()
        if not any(log.log_id == log_id for log in trust.renewal_logs):
            logs = (*trust.renewal_logs, RenewalLog(log_id=log_id, hash=renewal.HASH))
            sites.write_trust(self._site.trust_path, trust.model_copy(update={"renewal_logs": logs}))
        return log_id

    def _anchored(self, log_id: bytes, leaves: Sequence[bytes], deadline: float) -> tuple[Sighting, int, State]:
        """Anchors a batch and waits until it is final: (where it is, the size before it, the proof)."""
        old_size = self._ledger.anchored_size(log_id)
        new_size = old_size + len(leaves)
        root = merkle.root_of(leaves, renewal.HASH)
        self._ledger.anchor(log_id, old_size, new_size, root, [])
        while True:
            seen = self._ledger.sighting(log_id, new_size)
            if seen is None:
                raise TryLater("a re-org took the renewal away: run `scanseal renew` again")
            if seen.state == "final":
                break
            if time.monotonic() > deadline:
                raise TryLater("the renewal is not final in time: run `scanseal renew` again later, it is cheap to repeat")
            self._let_time_pass()
            time.sleep(POLL_S)
        state = self._ledger.proof(log_id, new_size, [])
        proven = ProvenState(state.header, state.nodes)
        expected = contracts.anchor_commitment(root, old_size, seen.block_number, seen.block_time, seen.beacons)
        if proven.word(self._trust.anchor_log, contracts.anchor_slot(log_id, new_size)) != int.from_bytes(expected, "big"):
            raise LedgerDisagrees("the node's proof shows another renewal than its events do")
        trust = self._site.trust()
        block = Block(number=proven.header.number, hash=proven.header.hash)
        if all(known.number != block.number for known in trust.blocks):
            sites.write_trust(self._site.trust_path, trust.model_copy(update={"blocks": (*trust.blocks, block)}))
        return seen, old_size, state

    def _write(
        self,
        bundles: Sequence[tuple[Path, Bundle]],
        order: Sequence[_Leaf],
        log_id: bytes,
        old_size: int,
        seen: Sighting,
        state: State,
        output: Path,
    ) -> int:
        hashes = [one.hash for one in order]
        by_bundle: dict[int, list[tuple[int, _Leaf]]] = {}
        for index, one in enumerate(order):
            by_bundle.setdefault(one.bundle, []).append((index, one))
        for number, renewed in by_bundle.items():
            path, bundle = bundles[number]
            seals = list(bundle.seals)
            states = (*bundle.states, state)
            for index, one in renewed:
                part = Renewed(
                    hash="blake3",
                    log_id=log_id,
                    old_size=old_size,
                    new_size=old_size + len(order),
                    index=index,
                    path=b"".join(merkle.inclusion_path(hashes, index, renewal.HASH)),
                    block_number=seen.block_number,
                    block_time=seen.block_time,
                    beacons=tuple(BeaconPart(number=beacon.number, hash=beacon.hash) for beacon in seen.beacons),
                    state=len(states) - 1,
                )
                seals[one.seal] = seals[one.seal].model_copy(update={"renewals": (*seals[one.seal].renewals, part)})
            written = bundle.model_copy(update={"seals": tuple(seals), "states": states})
            replace(output / path.name, evidence.write(written))
        return len(by_bundle)
