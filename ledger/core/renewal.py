"""Renewal: old evidence and its image under a newer hash, anchored before the old one falls. FORMAT.md §11.

What is renewed is the evidence of one image, byte for byte, and everything of the image that it binds: whoever could find other
values under an old hash later would have to find them under the newer one, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from blake3 import blake3

from ledger.core import content, contracts, evidence, merkle, stateproof
from ledger.core.contracts import Beacon
from ledger.core.errors import EvidenceInvalid, LedgerDisagrees, LedgerUnavailable
from ledger.core.evidence import Bundle, Entry, RecordEntry, Renewed, Seal
from ledger.core.proof import Proofs
from ledger.core.records import CustodyRecord
from ledger.core.search import Evidence, Subject
from ledger.core.typeddata import Domain

HASH: Final = "blake3"
LABEL: Final = blake3(b"scanseal/renewal").digest()
"""What a site's renewal log is opened under in place of a key: nobody signs for it, its owner anchors."""
_EVIDENCE: Final = b"scanseal/renewal/evidence\0"
_IMAGE: Final = b"scanseal/renewal/image\0"


def leaf(bundle: Bundle, seal: Seal, subject: Subject) -> bytes:
    """The leaf data of an image: 32 bytes of its evidence, 32 of what the evidence binds. Raises EvidenceInvalid."""
    alone = evidence.write(extract(bundle, seal))
    return blake3(_EVIDENCE + alone).digest() + _image_hash(seal, subject)


def leaf_hash(data: bytes) -> bytes:
    return merkle.leaf_hash(data, HASH)


def _image_hash(seal: Seal, subject: Subject) -> bytes:
    """BLAKE3 over the image key and every item with its value, the pixels by a BLAKE3 digest of the sealed kind."""
    kind = seal.record.profile.partition("-")[0]
    pixels = subject.digests.get(f"{kind}-{HASH}")
    if pixels is None:
        raise EvidenceInvalid(f"the image has no {kind}-{HASH} digest to be renewed under", "renewal")
    values: Mapping[str, str | None] = dict(subject.attributes) | {content.PIXELS: str(pixels)}
    hasher = blake3(_IMAGE + seal.image_key)
    for name in content.ITEMS:
        value = values.get(name)
        data = b"" if value is None else value.encode()
        hasher.update(bytes([len(name)]) + name.encode() + bytes([value is not None]) + len(data).to_bytes(4, "little") + data)
    return hasher.digest()


def extract(bundle: Bundle, seal: Seal) -> Bundle:
    """The evidence of one image alone: its seal, the records that it was made from, and what proves these; no renewals, no
    tiles. The same for the same evidence, whatever bundle it lies in."""
    domain = Domain(bundle.ledger.chain_id, bundle.ledger.anchor_log)
    ancestors = _ancestors(bundle, seal, domain)
    entries: list[Entry] = [seal, *ancestors]
    anchors = list(dict.fromkeys(entry.included.anchor for entry in entries if entry.included))
    states = list(dict.fromkeys(bundle.anchors[number].state for number in anchors))
    keys = {entry.record.key for entry in entries}
    beacons = {entry.record.beacon_hash for entry in entries}

    def included(entry: Entry) -> evidence.Included | None:
        if entry.included is None:
            return None
        return entry.included.model_copy(update={"anchor": anchors.index(entry.included.anchor)})

    alone = seal.model_copy(update={"study": 0, "included": included(seal), "renewals": (), "tiles": None})
    records = tuple(
        RecordEntry(record=entry.record, signature=entry.signature, leaves=entry.leaves, included=included(entry))
        for entry in ancestors
    )
    return bundle.model_copy(
        update={
            "certificates": tuple(sorted(der for der in bundle.certificates if evidence.key_of(der) in keys)),
            "studies": (bundle.studies[seal.study],),
            "seals": (alone,),
            "records": records,
            "anchors": tuple(
                bundle.anchors[number].model_copy(update={"state": states.index(bundle.anchors[number].state)})
                for number in anchors
            ),
            "states": tuple(bundle.states[number] for number in states),
            "headers": tuple(sorted(one for one in bundle.headers if stateproof.parse_header(one).hash in beacons)),
        }
    )


def _ancestors(bundle: Bundle, seal: Seal, domain: Domain) -> list[Entry]:
    """The records that an image was made from, in the order of their ids."""
    wanted = set(parents_of(seal))
    if not wanted:
        return []
    known = {entry.record.value.id(domain): entry for entry in sorted(bundle.entries, key=lambda one: bool(one.leaves))}
    found: dict[bytes, Entry] = {}
    while wanted:
        one = wanted.pop()
        if one not in known:
            raise EvidenceInvalid("the evidence lacks the record of an image that this one was made from", "renewal")
        if one not in found:
            found[one] = known[one]
            wanted |= set(parents_of(known[one]))
    return [found[one] for one in sorted(found)]


def parents_of(entry: Entry) -> Sequence[bytes]:
    """The record ids that a record names as parents."""
    record = entry.record.value
    return record.parents if isinstance(record, CustodyRecord) else ()


@dataclass(frozen=True)
class Renewal:
    """A renewal that holds: the hash, and the time of the block that took it."""

    hash: str
    block_time: int


def renewals(bundles: Evidence, number: int, seal: Seal, subject: Subject) -> tuple[Renewal, ...]:
    """The renewals of an image's evidence, each proven. Raises EvidenceInvalid where one is not of this evidence and image, and
    LedgerUnavailable or LedgerDisagrees where its block is not vouched for."""
    if not seal.renewals:
        return ()
    data = leaf(bundles.bundles[number], seal, subject)
    return tuple(_proven(bundles.proofs(number), one, data) for one in seal.renewals)


def _proven(proofs: Proofs, one: Renewed, data: bytes) -> Renewal:
    if not any(log.log_id == one.log_id and log.hash == one.hash for log in proofs.trust.renewal_logs):
        raise EvidenceInvalid("the trust file does not name the log that renewed this evidence", "renewal")
    if not one.old_size < one.new_size:
        raise EvidenceInvalid("a renewal's sizes are out of order", "renewal")
    path = evidence.split_words(one.path, "renewal")
    root = merkle.root_from_inclusion(leaf_hash(data), one.index, one.new_size - one.old_size, path, HASH)
    beacons = tuple(Beacon(beacon.number, beacon.hash) for beacon in one.beacons)
    expected = contracts.anchor_commitment(root, one.old_size, one.block_number, one.block_time, beacons)
    state = proofs.state(one.state)
    stored = state.word(proofs.trust.anchor_log, contracts.anchor_slot(one.log_id, one.new_size))
    if stored != int.from_bytes(expected, "big"):
        raise EvidenceInvalid("the renewal is not of this evidence and this image", "renewal")
    if not proofs.is_settled(one.state):
        raise LedgerUnavailable("the renewal's block is not final yet")
    if state.header.timestamp < one.block_time:
        raise LedgerDisagrees("the state is older than the renewal that it shows")
    return Renewal(one.hash, one.block_time)


def check_fallen(bundles: Evidence, found: Sequence[Renewal]) -> None:
    """Raises EvidenceInvalid where the evidence rests on a hash that has fallen, and was not renewed before."""
    for fallen in bundles.trust.fallen:
        if fallen.algorithm != "sha256":
            continue
        if not any(one.block_time < fallen.since for one in found):
            raise EvidenceInvalid(
                "it rests on SHA-256, which the trust file says has fallen, and was not renewed before: "
                "`scanseal renew` had to be run in time",
                "renewal",
            )
