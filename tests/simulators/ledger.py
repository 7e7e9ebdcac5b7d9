"""A whole ledger in memory: devices, an authority, a log, contract storage in real tries, headers that hash. No network.

Everything is made by the product's own code, apart from what a chain does: tries (py-trie) and headers are written here a
second
time, from the Yellow Paper. Switches make it misbehave in the ways that tests are about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import rlp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from trie import HexaryTrie

from ledger.core import content, contracts, merkle, trust
from ledger.core.certificates import Certificate, Device, Holder, Person
from ledger.core.checkpoint import Checkpoint, sign
from ledger.core.contracts import Beacon
from ledger.core.custody import Statement
from ledger.core.evidence import (
    Anchor,
    BeaconPart,
    Bundle,
    Entry,
    Included,
    Ledger,
    RecordEntry,
    RecordPart,
    Seal,
    State,
    Tiles,
)
from ledger.core.pixels import PixelDigest
from ledger.core.records import (
    AcquisitionRecord,
    Approval,
    CustodyRecord,
    GatewayRecord,
    Record,
    Role,
    SignedRecord,
    SyntheticRecord,
)
from ledger.core.search import Subject
from ledger.core.trust import Trust
from ledger.core.typeddata import Domain, keccak256
from ledger.keys import authority, signers
from ledger.keys.signers import SoftwareSigner

AnyEntry = TypeVar("AnyEntry", Seal, RecordEntry)
CHAIN_ID = 31337
ANCHOR_LOG = b"\xaa" * 20
REGISTRY = b"\xbb" * 20
OWNER = b"\xcc" * 20
CODE = keccak256(b"some code")
ORIGIN = "scanseal/Test-site"
START = 1_700_000_000


def header(number: int, time: int, state_root: bytes, parent: bytes = bytes(32)) -> bytes:
    """A London header."""
    fields = [parent, bytes(32), bytes(20), state_root, bytes(32), bytes(32), bytes(256)]
    fields += [0, number, 30_000_000, 0, time, b"", bytes(32), bytes(8), 7]
    return rlp.encode(fields)


@dataclass
class World:
    """One site with one device on a chain of its own. Times are seconds after START; block n is mined at START + 10 n."""

    curve: signers.Curve = "secp256k1"
    storage: dict[bytes, dict[bytes, int]] = field(default_factory=lambda: {ANCHOR_LOG: {}, REGISTRY: {}})
    headers: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        now = datetime.fromtimestamp(START, UTC)
        self.site = authority.new_authority("Test site", now)
        self.device = Device("Acme", "CT 3000", "4711", "CT1", "Test site")
        self.signer: SoftwareSigner = signers.new_key(self.curve)
        self.certificate = self.certify(self.signer, self.device)
        self.log_key = Ed25519PrivateKey.generate()
        self.log_public = authority.log_public_key(self.log_key)
        self.log_id = contracts.log_id(OWNER, self.log_public)
        self.domain = Domain(CHAIN_ID, ANCHOR_LOG)
        self.study_secret = bytes(range(32))
        self.entries: list[bytes] = []
        self.others: list[Certificate] = []
        self.tail: dict[bytes, tuple[int, bytes]] = {}
        self.beacon_block = 3
        self.mine(self.beacon_block)
        self.enrol(self.signer, self.certificate)

    # ---- keys ----

    def certify(self, signer: SoftwareSigner, holder: Holder, issuer: authority.Authority | None = None) -> Certificate:
        request = authority.request(holder, signer)
        return (issuer or self.site).issue(request, datetime.fromtimestamp(START, UTC))

    def enrol(
        self,
        signer: SoftwareSigner,
        certificate: Certificate,
        *,
        enrolled: int = START,
        retired: int = 0,
        compromised: int = 0,
        roles: Role = Role.ACQUIRE,
    ) -> None:
        first, second = contracts.key_slots(signer.key)
        packed = enrolled | retired << 48 | compromised << 96 | int(roles) << 144
        self.storage[REGISTRY][first] = int.from_bytes(certificate.fingerprint, "big")
        self.storage[REGISTRY][second] = packed

    # ---- blocks ----

    def time_of(self, number: int) -> int:
        return START + 10 * number

    def mine(self, number: int) -> bytes:
        """The header of a block with the storage as it is now."""
        self.headers[number] = header(number, self.time_of(number), self._state()[0])
        return self.headers[number]

    def hash_of(self, number: int) -> bytes:
        return keccak256(self.headers[number])

    def _state(self, *, code: bytes = CODE) -> tuple[bytes, list[bytes]]:
        """(state root, all nodes)."""
        nodes: dict[bytes, bytes] = {}
        accounts = HexaryTrie({})
        for address, words in self.storage.items():
            tree = HexaryTrie({})
            for slot, word in words.items():
                if word:
                    tree.set(keccak256(slot), rlp.encode(word))
            nodes |= tree.db
            accounts.set(keccak256(address), rlp.encode([1, 0, tree.root_hash, code]))
        for filler in range(6):
            accounts.set(keccak256(bytes([filler]) * 20), rlp.encode([filler + 1, 5, keccak256(b"\x80"), keccak256(b"")]))
        nodes |= accounts.db
        return accounts.root_hash, [node for node in nodes.values() if len(node) >= 32]

    def state(self, number: int) -> State:
        """A state proof at a new block."""
        self.mine(number)
        return State(header=self.headers[number], nodes=tuple(self._state()[1]))

    # ---- sealing and anchoring ----

    def draft(
        self, subject: Subject, profile: str = "px1-sha256", *, signer: SoftwareSigner | None = None
    ) -> AcquisitionRecord:
        key = (signer or self.signer).key
        counter, previous = self.tail.get(key, (-1, bytes(32)))
        values = dict(subject.attributes) | {content.PIXELS: str(subject.digests[profile])}
        image_key = content.image_key(self.study_secret, values[content.PIXELS], subject.instance)
        return AcquisitionRecord(
            content.commit(values, content.Salts(image_key)).root,
            f"{profile}/{content.ATTRIBUTE_LIST}",
            key,
            counter + 1,
            previous,
            self.time_of(self.beacon_block) + 1,
            self.beacon_block,
            self.hash_of(self.beacon_block),
        )

    def seal(
        self,
        subject: Subject,
        profile: str = "px1-sha256",
        *,
        signer: SoftwareSigner | None = None,
        decoder: str | None = None,
        decoded: PixelDigest | None = None,
        tiles: bool = False,
        in_log: bool = True,
        profile_name: str | None = None,
        **changes: object,
    ) -> Seal:
        """A seal, signed and appended to the log; `changes` replace fields of the record before it is signed."""
        digest = subject.digests[profile]
        values = dict(subject.attributes) | {content.PIXELS: str(digest)}
        if decoded is not None:
            values[content.DECODED] = f"{decoded} {decoder}"
        image_key = content.image_key(self.study_secret, str(digest), subject.instance)
        commitment = content.commit(values, content.Salts(image_key))
        record = replace(self.draft(subject, profile, signer=signer), content=commitment.root, **changes)
        record = replace(record, profile=profile_name or record.profile)
        signing = signer or self.signer
        record_id = record.id(self.domain)
        signed = SignedRecord(record, signing.sign(record_id))
        self.tail[signing.key] = (record.counter, record_id)
        if in_log:
            self.entries.append(signed.entry())
        find = content.find_key(self.study_secret)
        tokens = content.find_token(find, content.PIXELS, str(digest)) + content.find_token(
            find, "SOPInstanceUID", subject.instance
        )
        return Seal(
            record=RecordPart.of(record),
            signature=signed.signature,
            leaves=b"".join(commitment.leaves),
            image_key=image_key,
            study=0,
            find=tokens,
            decoder=decoder,
            tiles=Tiles.of(digest) if tiles else None,
        )

    def derive(
        self,
        child: Subject,
        parent: Entry,
        statement: Statement,
        *,
        signer: SoftwareSigner,
        parents: tuple[bytes, ...] | None = None,
        changed: tuple[str, ...] | None = None,
        in_log: bool = True,
        **changes: object,
    ) -> Seal:
        """A seal of `child` as made from `parent`, whatever the statement says: `changed` are the items that get salts of their
        own (by default those that the statement names), `parents` other record ids."""
        digest = child.digests["px1-sha256"]
        parent_id = parent.record.value.id(self.domain)
        values = dict(child.attributes) | {content.PIXELS: str(digest)}
        key = content.derived_key(self.study_secret, parent_id, values)
        named = statement.changed if changed is None else changed
        salts = parent.salts if isinstance(parent, Seal) else content.Salts(bytes(16))
        kept = {name: salts.salt(name) for name in content.ITEMS if name not in named}
        commitment = content.commit(values, content.Salts(key, kept))
        bound = statement.with_salts(key, b"".join(kept.values()))
        own = {"parents": parents or (parent_id,), "action": statement.action, "statement": bound.text()}
        profile = f"px1-sha256/{content.ATTRIBUTE_LIST}"
        signed = self._sign(CustodyRecord, commitment.root, profile, own, signer, in_log, changes)
        find = content.Finder(content.find_key(self.study_secret))
        return Seal(
            record=RecordPart.of(signed.record),
            signature=signed.signature,
            leaves=b"".join(commitment.leaves),
            image_key=key,
            kept=b"".join(kept.values()),
            find=find.token(content.PIXELS, str(digest)) + find.token("SOPInstanceUID", child.instance),
        )

    def step(
        self, parent: Entry, statement: Statement, *, signer: SoftwareSigner, in_log: bool = True, **changes: object
    ) -> RecordEntry:
        """A custody record that leaves its parent's image as it is."""
        record = parent.record.value
        own = {"parents": (record.id(self.domain),), "action": statement.action, "statement": statement.text()}
        signed = self._sign(CustodyRecord, record.content, record.profile, own, signer, in_log, changes)
        return RecordEntry(record=RecordPart.of(signed.record), signature=signed.signature, leaves=parent.leaves)

    def approve(
        self, approved: Entry, name: str, meaning: str, *, signer: SoftwareSigner, in_log: bool = True, **changes: object
    ) -> RecordEntry:
        """A person's approval of a record."""
        own = {"name": name, "meaning": meaning}
        signed = self._sign(Approval, approved.record.value.id(self.domain), "approval-1", own, signer, in_log, changes)
        return RecordEntry(record=RecordPart.of(signed.record), signature=signed.signature)

    def synthesise(self, subject: Subject, generator: str, *, signer: SoftwareSigner, in_log: bool = True) -> Seal:
        """A seal of an image that is declared synthetic."""
        made = self.seal(subject, in_log=False)
        signed = self._sign(
            SyntheticRecord, made.record.content, made.record.profile, {"generator": generator}, signer, in_log, {}
        )
        return made.model_copy(update={"record": RecordPart.of(signed.record), "signature": signed.signature})

    def hold(self, subject: Subject, *, signer: SoftwareSigner, in_log: bool = True, **changes: object) -> Seal:
        """A gateway's record of an image that came from it knows not where."""
        made = self.seal(subject, in_log=False)
        signed = self._sign(GatewayRecord, made.record.content, made.record.profile, {}, signer, in_log, changes)
        return made.model_copy(update={"record": RecordPart.of(signed.record), "signature": signed.signature})

    def newcomer(self, roles: Role, name: str = "GW", *, person: str | None = None) -> tuple[SoftwareSigner, Certificate]:
        """A fresh key with these roles, certified and enrolled: a device's, or a person's of that printed name."""
        signer = signers.new_key(self.curve)
        holder = Person(person, "Test site") if person else Device("Acme", "Gateway", name, name, "Test site")
        certificate = self.certify(signer, holder)
        self.enrol(signer, certificate, roles=roles)
        self.others.append(certificate)
        return signer, certificate

    def _sign(
        self,
        kind: type[Record],
        root: bytes,
        profile: str,
        own: dict[str, Any],
        signer: SoftwareSigner,
        in_log: bool,
        changes: dict[str, object],
    ) -> SignedRecord:
        counter, previous = self.tail.get(signer.key, (-1, bytes(32)))
        time = self.time_of(self.beacon_block) + 2
        head = (root, profile, signer.key, counter + 1, previous, time, self.beacon_block, self.hash_of(self.beacon_block))
        record = replace(kind(*head, **own), **changes)
        record_id = record.id(self.domain)
        signed = SignedRecord(record, signer.sign(record_id))
        self.tail[signer.key] = (record.counter, record_id)
        if in_log:
            self.entries.append(signed.entry())
        return signed

    def anchored(
        self, seals: list[Seal], *, records: Sequence[RecordEntry] = (), block: int = 5, state_block: int = 8, **changes: object
    ) -> Bundle:
        """A bundle with everything in the log anchored in `block` and proven at `state_block`."""
        return self._anchored(seals, list(records), block, state_block, changes)

    def _anchored(
        self, seals: list[Seal], records: list[RecordEntry], block: int, state_block: int, changes: dict[str, object]
    ) -> Bundle:
        size = len(self.entries)
        leaves = [merkle.leaf_hash(entry) for entry in self.entries]
        root = merkle.root_of(leaves)
        beacons = (Beacon(self.beacon_block, self.hash_of(self.beacon_block)),)
        commitment = contracts.anchor_commitment(root, 0, block, self.time_of(block), beacons)
        self.storage[ANCHOR_LOG][contracts.anchor_slot(self.log_id, size)] = int.from_bytes(commitment, "big")

        def included(entry: AnyEntry) -> AnyEntry:
            signed = entry.signed.entry()
            if signed not in self.entries:
                return entry
            index = self.entries.index(signed)
            path = b"".join(merkle.inclusion_path(leaves, index))
            return entry.model_copy(update={"included": Included(anchor=0, index=index, path=path)})

        anchor = Anchor(
            checkpoint=sign(Checkpoint(ORIGIN, size, root), self.log_public, self.log_key.sign),
            old_size=0,
            block_number=block,
            block_time=self.time_of(block),
            beacons=tuple(BeaconPart(number=beacon.number, hash=beacon.hash) for beacon in beacons),
            state=0,
        )
        proven = {"anchors": (anchor,), "states": (self.state(state_block),), "records": tuple(map(included, records))}
        return self.bundle([included(seal) for seal in seals], **(proven | changes))

    def bundle(self, seals: list[Seal], **changes: object) -> Bundle:
        values: dict[str, object] = {
            "format": "scanseal-bundle-1",
            "ledger": self.ledger(),
            "certificates": (self.certificate.der, *(certificate.der for certificate in self.others)),
            "studies": (content.find_key(self.study_secret),),
            "seals": tuple(seals),
            "headers": (self.headers[self.beacon_block],),
        }
        return Bundle(**(values | changes))

    def ledger(self) -> Ledger:
        return Ledger(
            chain_id=CHAIN_ID,
            anchor_log=ANCHOR_LOG,
            device_registry=REGISTRY,
            origin=ORIGIN,
            log_id=self.log_id,
            log_key=self.log_public,
        )

    def trust(self, *blocks: int, **changes: object) -> Trust:
        """A trust file that believes in these blocks."""
        values: dict[str, object] = {
            "format": "scanseal-trust-1",
            "chain_id": CHAIN_ID,
            "genesis_hash": bytes(32),
            "anchor_log": trust.Contract(address=ANCHOR_LOG, code_hash=CODE),
            "device_registry": trust.Contract(address=REGISTRY, code_hash=CODE),
            "logs": (trust.TrustedLog(origin=ORIGIN, log_id=self.log_id, key=self.log_public),),
            "authorities": (trust.Authority(name="Test site", certificate=self.site.x509.public_bytes(Encoding.PEM).decode()),),
            "blocks": tuple(trust.Block(number=number, hash=self.hash_of(number)) for number in blocks),
        }
        return Trust(**(values | changes))
