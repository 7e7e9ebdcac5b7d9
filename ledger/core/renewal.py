"""Renewal: a record, and the image it commits to, under a newer hash and on chain before SHA-256 falls. FORMAT.md §11.

A renewal says: this evidence and this image existed, together, before a block. Evidence that fits its image was
not to be made up while SHA-256 stood, so nobody has to be believed but the chain: not who renewed, not whose log it is in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from blake3 import blake3

from ledger.core import content, contracts, merkle
from ledger.core.errors import EvidenceInvalid, LedgerUnavailable
from ledger.core.evidence import Bundle, Entry, RecordEntry, Renewed, Seal, split_words
from ledger.core.proof import Proofs
from ledger.core.records import ManifestRecord
from ledger.core.search import Subject

HASH: Final = "blake3"
LOG: Final = b"scanseal/renewal"
"""What an account's renewal log is opened under in place of a key: nobody signs for it, whoever opened it anchors."""
_EVIDENCE: Final = b"scanseal/renewal/evidence\0"
_OPENING: Final = b"scanseal/renewal/opening\0"
_IMAGE: Final = b"scanseal/renewal/image\0"


def evidence_hash(entry: Entry, certificate: bytes, checkpoint: str) -> bytes:
    """BLAKE3 of all of a record's evidence that rests on SHA-256: 32 bytes. `certificate` (DER) is its key's, `checkpoint` the
    signed note of its anchor. Raises EvidenceInvalid for a record that is not on chain."""
    if entry.included is None:
        raise EvidenceInvalid("a record that is not on chain has nothing to be renewed", "renewal")
    parts = [entry.signed.entry(), entry.leaves or b"", certificate, checkpoint.encode()]
    return _hashed(_EVIDENCE, [*parts, entry.included.index.to_bytes(8, "little"), entry.included.path])


def opening_hash(seal: Seal) -> bytes:
    """BLAKE3 of what opens a seal's leaves: 32 bytes. It stays where the seal itself becomes a record that opens nothing."""
    return _hashed(_OPENING, [seal.image_key, seal.kept or b"", (seal.decoder or "").encode()])


def image_hash(seal: Seal, digest: str, attributes: Mapping[str, str | None]) -> bytes:
    """BLAKE3 of an image, keyed with its image key, so that it tells nothing to whoever may not see the image: 32 bytes.

    `digest` is a BLAKE3 digest of its pixels; attributes are those of the list that every seal binds.
    """
    values = [attributes.get(name) for name in content.ITEMS[2:]]
    marked = [b"\0" if value is None else b"\1" + value.encode() for value in values]
    return _hashed(_IMAGE, [seal.image_key, digest.encode(), *marked])


def _hashed(tag: bytes, parts: list[bytes]) -> bytes:
    hasher = blake3(tag)
    for part in parts:
        hasher.update(len(part).to_bytes(4, "little") + part)
    return hasher.digest()


def leaf_hash(evidence: bytes, opening: bytes | None, image: bytes | None) -> bytes:
    """The leaf of a record in a renewal's tree, of its hashes; zeros for one that there is not."""
    nothing = bytes(merkle.HASH_SIZE)
    return merkle.leaf_hash(evidence + (opening or nothing) + (image or nothing), HASH)


def image_hashes(seal: Seal, subject: Subject) -> list[bytes]:
    """What a renewal may say of an image that is the sealed one: by a digest of the sealed kind, and by that of its values, for
    what was decoded from a lossy original. The first is what to renew with; none where the image has no such digest."""
    kind = seal.record.profile.partition("-")[0]
    found = [subject.digests.get(f"{one}-{HASH}") for one in dict.fromkeys((kind, "px1"))]
    return [image_hash(seal, str(digest), subject.attributes) for digest in found if digest is not None]


@dataclass(frozen=True)
class ProvenRenewal:
    """A renewal of one record that the AnchorLog took in a block of time `block_time`, as the bundle's state `state` shows."""

    block_time: int
    state: int
    image: bytes | None


def renewals(proofs: Proofs, entry: Entry) -> list[ProvenRenewal]:
    """The renewals of a record, each proven. Raises EvidenceInvalid where one is not of exactly this evidence."""
    if not entry.renewed:
        return []
    hashed = evidence_hash(entry, *around(proofs, entry))
    opening = opening_hash(entry) if isinstance(entry, Seal) else None
    return [_proven(proofs, one, leaf_hash(hashed, opening or one.opening, one.image)) for one in entry.renewed]


def around(proofs: Proofs, entry: Entry) -> tuple[bytes, str]:
    """What `evidence_hash` takes beside a record: its key's certificate (DER), and the signed note of its anchor."""
    anchors = proofs.bundle.anchors
    return proofs.certificate(entry.record.key).der, anchors[entry.included.anchor].checkpoint if entry.included else ""


def _proven(proofs: Proofs, one: Renewed, leaf: bytes) -> ProvenRenewal:
    part = proofs.bundle.renewals[one.renewal]
    path = split_words(one.path, "renewal")
    root = merkle.root_from_inclusion(leaf, one.index, part.new_size - part.old_size, path, part.hash)
    expected = contracts.anchor_commitment(root, part.old_size, part.block_number, part.block_time, ())
    state = proofs.state(part.state)
    stored = state.word(proofs.trust.anchor_log, contracts.anchor_slot(part.log_id, part.new_size))
    if stored != int.from_bytes(expected, "big"):
        raise EvidenceInvalid("the renewal is not of this evidence", "renewal")
    if state.header.timestamp < part.block_time:
        raise EvidenceInvalid("the state is older than the renewal that it shows", "renewal")
    return ProvenRenewal(part.block_time, part.state, one.image)


def images_in_time(proofs: Proofs, entry: Entry) -> frozenset[bytes | None] | None:
    """Step 8a: what the renewals that count say of the image; None while SHA-256 stands, and nothing needs to be renewed.

    Raises EvidenceInvalid where a renewal is damaged, or none was in time; LedgerUnavailable where nobody vouches for the block
    of the one that counts; LedgerDisagrees where a renewal's block is another one.
    """
    found = [(one, _is_settled(proofs, one.state)) for one in renewals(proofs, entry)]
    fell = proofs.trust.fell_at("sha256")
    if fell is None:
        return None
    if isinstance(entry.record.value, ManifestRecord):
        raise EvidenceInvalid("SHA-256 has fallen, and the list of a manifest rests on nothing else", "renewal")
    early = [(one, is_settled) for one, is_settled in found if one.block_time < fell]
    counting = frozenset(one.image for one, is_settled in early if is_settled)
    if counting:
        return counting
    if early:
        raise LedgerUnavailable(
            "the renewal's block is not in the trust file, or not final: verify online, or run `scanseal trust update` first"
        )
    if found:
        raise EvidenceInvalid("it was renewed after SHA-256 had fallen: too late to prove anything", "renewal")
    raise EvidenceInvalid("it rests on SHA-256, which falls by the trust file, and is not renewed: `scanseal renew`", "renewal")


def _is_settled(proofs: Proofs, state: int) -> bool:
    """Whether a state's block is vouched for and settled. While SHA-256 stands nothing hangs on it."""
    try:
        return proofs.is_settled(state)
    except LedgerUnavailable:
        return False


def check_image(seal: Seal, subject: Subject, images: frozenset[bytes | None] | None) -> None:
    """Step 8a for an image that equals what was sealed: since SHA-256 fell that takes a renewal of this very image. Raises
    EvidenceInvalid."""
    if images is not None and images.isdisjoint(image_hashes(seal, subject)):
        raise EvidenceInvalid("SHA-256 has fallen, and its renewals are not of this image", "renewal")


def without_renewals(bundle: Bundle) -> Bundle:
    """The bundle as it was before it was renewed. States come after those that it had, and none of its anchors names them."""
    states = max((anchor.state + 1 for anchor in bundle.anchors), default=0)
    return bundle.model_copy(
        update={
            "seals": tuple(seal.model_copy(update={"renewed": None}) for seal in bundle.seals),
            "records": tuple(entry.model_copy(update={"renewed": None}) for entry in bundle.records),
            "renewals": (),
            "states": bundle.states[:states],
        }
    )


def as_record(seal: Seal) -> RecordEntry:
    """A seal as a record that opens nothing, with its renewals."""
    opening = opening_hash(seal) if seal.renewed else None
    renewed = tuple(one.model_copy(update={"opening": opening}) for one in seal.renewed or ()) or None
    return RecordEntry(
        record=seal.record, signature=seal.signature, leaves=seal.leaves, included=seal.included, renewed=renewed
    )
