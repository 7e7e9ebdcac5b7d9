"""Evidence bundles out of a site's store, and out of files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ledger.core import certificates, content, evidence
from ledger.core.errors import EvidenceInvalid, FixInput, Unreadable
from ledger.core.evidence import Anchor, BeaconPart, Bundle, Included, Ledger, Seal, State
from ledger.core.trust import Trust
from ledger.log import Log
from ledger.log.anchoring import AnchorRow
from ledger.store.anchors import AnchorStore
from ledger.store.journal import JournalStore, StoredSeal

SUFFIX = ".seal.json"


class Exporter:
    """Makes bundles of a site's seals, with proofs for those whose anchor is final."""

    def __init__(self, trust: Trust, journal: JournalStore, anchors: AnchorStore, log: Log, ders: Sequence[bytes]) -> None:
        self._trust, self._journal, self._anchors, self._log = trust, journal, anchors, log
        self._certificates = {certificates.parse(der).key: der for der in ders}

    def bundle(self, seals: Iterable[StoredSeal], *, with_tiles: bool) -> Bundle:
        """One bundle of these seals; what they share is in it once."""
        studies: dict[int, bytes] = {}
        rows: dict[int, AnchorRow] = {}
        keys: set[bytes] = set()
        beacons: set[bytes] = set()
        parts: list[Seal] = []
        for stored in seals:
            row = None if stored.log_index is None else self._anchors.covering(stored.log_index)
            if stored.study not in studies:
                studies[stored.study] = content.find_key(self._journal.study_secret(stored.study))
            included = None
            if row is not None and stored.log_index is not None:
                rows.setdefault(row.new_size, row)
                path = self._log.inclusion_proof(stored.log_index, row.new_size)
                included = Included(anchor=list(rows).index(row.new_size), index=stored.log_index, path=b"".join(path))
            record = stored.signed.record
            keys.add(record.key)
            beacons.add(record.beacon_hash)
            parts.append(stored.part(list(studies).index(stored.study), included, with_tiles=with_tiles))
        anchors, states = _anchor_parts(rows.values())
        return Bundle(
            format="scanseal-bundle-1",
            ledger=self._ledger(),
            certificates=tuple(self._certificate(key) for key in sorted(keys)),
            studies=tuple(studies.values()),
            seals=tuple(parts),
            anchors=anchors,
            states=states,
            headers=tuple(self._anchors.headers(sorted(beacons)).values()),
        )

    def _ledger(self) -> Ledger:
        log = self._trust.logs[0]
        return Ledger(
            chain_id=self._trust.chain_id,
            anchor_log=self._trust.anchor_log.address,
            device_registry=self._trust.device_registry.address,
            origin=log.origin,
            log_id=log.log_id,
            log_key=log.key,
        )

    def _certificate(self, key: bytes) -> bytes:
        if key not in self._certificates:
            raise FixInput(
                f"no certificate for key 0x{key.hex()[:16]}...: put the device's .pem into the site's devices folder"
            )
        return self._certificates[key]


def describe(bundle: Bundle) -> dict[str, Any]:
    """What a bundle claims, without proof."""
    known = {certificate.key: certificate for certificate in map(certificates.parse, bundle.certificates)}
    return {
        "chain_id": bundle.ledger.chain_id,
        "anchor_log": "0x" + bundle.ledger.anchor_log.hex(),
        "device_registry": "0x" + bundle.ledger.device_registry.hex(),
        "origin": bundle.ledger.origin,
        "devices": [certificate.device().name for certificate in known.values()],
        "anchors": [
            {
                "size": int(anchor.checkpoint.split("\n")[1]) if anchor.checkpoint.count("\n") > 1 else None,
                "old_size": anchor.old_size,
                "block_number": anchor.block_number,
                "block_time": anchor.block_time,
            }
            for anchor in bundle.anchors
        ],
        "seals": [
            {
                "key": "0x" + seal.record.key.hex(),
                "device": known[seal.record.key].device().name if seal.record.key in known else None,
                "counter": seal.record.counter,
                "profile": seal.record.profile,
                "claimed_time": seal.record.claimed_time,
                "anchor": None if seal.included is None else seal.included.anchor,
                "log_index": None if seal.included is None else seal.included.index,
            }
            for seal in bundle.seals
        ],
    }


def _anchor_parts(rows: Iterable[AnchorRow]) -> tuple[tuple[Anchor, ...], tuple[State, ...]]:
    anchors: list[Anchor] = []
    states: list[State] = []
    for row in rows:
        if row.proof is None or row.block_number is None or row.block_time is None:
            raise FixInput("an anchor without proof cannot be exported")
        if row.proof not in states:
            states.append(row.proof)
        anchors.append(
            Anchor(
                checkpoint=row.checkpoint,
                old_size=row.old_size,
                block_number=row.block_number,
                block_time=row.block_time,
                beacons=tuple(BeaconPart(number=beacon.number, hash=beacon.hash) for beacon in row.beacons),
                state=states.index(row.proof),
            )
        )
    return tuple(anchors), tuple(states)


def read_bundle(path: Path) -> Bundle:
    """A bundle from a file. Raises EvidenceInvalid naming the file."""
    try:
        if path.stat().st_size > evidence.SIZE_LIMIT:
            raise EvidenceInvalid(f"{path.name}: larger than {evidence.SIZE_LIMIT} bytes, no bundle")
        return evidence.parse(path.read_bytes())
    except EvidenceInvalid as error:
        raise EvidenceInvalid(f"{path.name}: {error}", error.step) from error
    except OSError as error:
        raise Unreadable(f"{path.name}: cannot be read ({error.strerror})") from error


def bundle_files(path: Path) -> list[Path]:
    """The bundle that is named, or all in the folder that is named. Raises FixInput where there is none."""
    if path.is_dir():
        found = sorted(path.rglob(f"*{SUFFIX}"))
        if not found:
            raise FixInput(f"{path}: no *{SUFFIX} in this folder")
        return found
    if not path.exists():
        raise FixInput(f"{path}: no such bundle")
    return [path]
