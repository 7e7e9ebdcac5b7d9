"""Evidence bundles out of a site's store, and out of files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ledger.core import certificates, content, evidence, strict
from ledger.core.errors import EvidenceInvalid, FixInput, Unreadable
from ledger.core.evidence import Anchor, BeaconPart, Bundle, Included, Ledger, Seal, State
from ledger.core.trust import Trust
from ledger.log import Log
from ledger.log.anchoring import AnchorRow
from ledger.store.anchors import AnchorStore
from ledger.store.records import RecordReader, StoredRecord

SUFFIX = ".seal.json"


class Exporter:
    """Makes bundles of a site's seals, with proofs for those whose anchor is final."""

    def __init__(self, trust: Trust, journal: RecordReader, anchors: AnchorStore, log: Log, ders: Sequence[bytes]) -> None:
        self._trust, self._journal, self._anchors, self._log = trust, journal, anchors, log
        self._certificates = {certificates.parse(der).key: der for der in ders}

    def bundle(self, images: Iterable[StoredRecord], *, with_tiles: bool, others: Sequence[StoredRecord] = ()) -> Bundle:
        """One bundle of these images, with the records that they were made from and those that followed; and of `others`,
        which have no image. What they share is in it once."""
        gathered = _Gathered(self._anchors, self._log)
        stored = list(images)
        seals: list[Seal] = []
        studies: dict[int, bytes] = {}
        for one in stored:
            if one.study is None:
                raise FixInput("a record without an image of its own has no bundle of an image")
            if one.study not in studies:
                studies[one.study] = content.find_key(self._journal.study_secret(one.study))
            included = gathered.included(one)
            seals.append(one.seal(list(studies).index(one.study), included, with_tiles=with_tiles))
        records = self._around([*stored, *others], {one.record_id for one in stored})
        entries = [one.entry(leaves, gathered.included(one)) for one, leaves in records]
        anchors, states = _anchor_parts(gathered.rows.values())
        return Bundle(
            format="scanseal-bundle-1",
            ledger=self._ledger(),
            certificates=tuple(self._certificate(key) for key in sorted(gathered.keys)),
            studies=tuple(studies.values()),
            seals=tuple(seals),
            records=tuple(entries),
            anchors=anchors,
            states=states,
            headers=tuple(self._anchors.headers(sorted(gathered.beacons)).values()),
        )

    def _around(self, stored: Sequence[StoredRecord], have: set[bytes]) -> Iterator[tuple[StoredRecord, bytes | None]]:
        """What else belongs to these: the records that they were made from, with leaves, and the steps and approvals since."""
        ancestors = self._journal.ancestors(stored)
        ahead = [one.record_id for one in stored]
        trail: dict[bytes, StoredRecord] = {}
        while ahead:
            steps = [one for one in self._journal.following(ahead) if one.leaves is None and one.record_id not in trail]
            trail |= {one.record_id: one for one in steps}
            ahead = [one.record_id for one in steps]
        holding = self._journal.holding({one.signed.record.content for one in ancestors.values() if one.leaves is None})
        named = {one.record_id: one for one in stored} | ancestors | trail
        for record_id in sorted(named.keys() - have, key=lambda one: named[one].number):
            one = named[record_id]
            leaves = one.leaves
            if record_id in ancestors and leaves is None:
                holder = holding.get(one.signed.record.content)
                leaves = None if holder is None else holder.leaves
            yield one, leaves

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


class _Gathered:
    """What the records of one bundle share: anchors, keys, beacons."""

    def __init__(self, anchors: AnchorStore, log: Log) -> None:
        self._anchors, self._log = anchors, log
        self.rows: dict[int, AnchorRow] = {}
        self.keys: set[bytes] = set()
        self.beacons: set[bytes] = set()

    def included(self, stored: StoredRecord) -> Included | None:
        """A record's place in the log, where an anchor covers it; its key and beacon are noted."""
        self.keys.add(stored.signed.record.key)
        self.beacons.add(stored.signed.record.beacon_hash)
        row = None if stored.log_index is None else self._anchors.covering(stored.log_index)
        if row is None or stored.log_index is None:
            return None
        self.rows.setdefault(row.new_size, row)
        path = self._log.inclusion_proof(stored.log_index, row.new_size)
        return Included(anchor=list(self.rows).index(row.new_size), index=stored.log_index, path=b"".join(path))


def describe(bundle: Bundle) -> dict[str, Any]:
    """What a bundle claims, without proof."""
    known = {certificate.key: certificate for certificate in map(certificates.parse, bundle.certificates)}
    return {
        "chain_id": bundle.ledger.chain_id,
        "anchor_log": "0x" + bundle.ledger.anchor_log.hex(),
        "device_registry": "0x" + bundle.ledger.device_registry.hex(),
        "origin": bundle.ledger.origin,
        "devices": [certificate.holder().name for certificate in known.values()],
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
                "device": known[seal.record.key].holder().name if seal.record.key in known else None,
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
        if path.stat().st_size > strict.SIZE_LIMIT:
            raise EvidenceInvalid(f"{path.name}: larger than {strict.SIZE_LIMIT} bytes, no bundle")
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
