"""What a bundle proves about the ledger, judged against a trust file: steps 5 to 8 of the verification in FORMAT.md §9.

Everything here is computed once for a bundle and shared by its seals. A proof that fails raises EvidenceInvalid; a block that
nobody vouches for raises LedgerUnavailable, since asking the chain can still settle it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ledger.core import certificates, checkpoint, contracts, stateproof
from ledger.core.certificates import Certificate
from ledger.core.contracts import Beacon, KeyState
from ledger.core.errors import EvidenceInvalid, LedgerDisagrees, LedgerUnavailable
from ledger.core.evidence import Bundle
from ledger.core.records import Role
from ledger.core.stateproof import Header
from ledger.core.trust import Contract, Facts, Trust, TrustedLog
from ledger.core.typeddata import keccak256


@dataclass(frozen=True)
class ProvenAnchor:
    """A checkpoint that the AnchorLog stored: tree size, root, and the block that took it. `state` is the bundle's state
    that shows it."""

    size: int
    root: bytes
    block_number: int
    block_time: int
    beacons: tuple[Beacon, ...]
    state: int


class ProvenState:
    """A block header and its trie nodes: reads storage as that block had it. Proves nothing about whether the block is
    canonical."""

    def __init__(self, header: bytes, nodes: tuple[bytes, ...]) -> None:
        self.header: Header = stateproof.parse_header(header)
        self._nodes: Mapping[bytes, bytes] = {keccak256(node): node for node in nodes}
        self._storage_roots: dict[bytes, bytes] = {}
        self._words: dict[tuple[bytes, bytes], int] = {}

    def word(self, contract: Contract, slot: bytes) -> int:
        """The storage word of a contract whose code is the trusted one. Raises EvidenceInvalid (step state proof)."""
        known = self._words.get((contract.address, slot))
        if known is None:
            known = stateproof.verify_storage(self._storage_root(contract), slot, self._nodes)
            self._words[contract.address, slot] = known
        return known

    def _storage_root(self, contract: Contract) -> bytes:
        root = self._storage_roots.get(contract.address)
        if root is None:
            account = stateproof.verify_account(self.header.state_root, contract.address, self._nodes)
            if account.code_hash != contract.code_hash:
                raise EvidenceInvalid(
                    f"the code at 0x{contract.address.hex()} is not the contract that the trust file names", "state proof"
                )
            root = self._storage_roots[contract.address] = account.storage_root
        return root


class Proofs:
    """The facts that one bundle proves. Constructing it raises EvidenceInvalid where the bundle is for another ledger."""

    def __init__(self, bundle: Bundle, trust: Trust, facts: Facts) -> None:
        self.bundle, self.trust, self.facts = bundle, trust, facts
        self.log = _trusted_log(bundle, trust)
        self._anchors: dict[int, ProvenAnchor] = {}
        self._states: dict[int, ProvenState] = {}
        self._certificates: dict[bytes, Certificate] | None = None
        self._header_times: dict[bytes, int] | None = None

    def certificate(self, key: bytes) -> Certificate:
        """The bundle's certificate for a key. Raises EvidenceInvalid (step certificate)."""
        if self._certificates is None:
            parsed = [certificates.parse(der) for der in self.bundle.certificates]
            self._certificates = {certificate.key: certificate for certificate in parsed}
        certificate = self._certificates.get(key)
        if certificate is None:
            raise EvidenceInvalid("the bundle has no certificate for the key that the record names", "certificate")
        return certificate

    def anchor(self, number: int) -> ProvenAnchor:
        """Steps 5 and 6: the checkpoint is signed by the trusted log, and the AnchorLog's storage holds it."""
        if number not in self._anchors:
            part = self.bundle.anchors[number]
            signed = checkpoint.parse_and_verify(part.checkpoint, self.log.origin, self.log.key)
            beacons = tuple(Beacon(beacon.number, beacon.hash) for beacon in part.beacons)
            stored = self.state(part.state).word(self.trust.anchor_log, contracts.anchor_slot(self.log.log_id, signed.size))
            claimed = contracts.anchor_commitment(signed.root, part.old_size, part.block_number, part.block_time, beacons)
            if stored != int.from_bytes(claimed, "big"):
                raise EvidenceInvalid(f"the AnchorLog holds another checkpoint for size {signed.size}", "state proof")
            self._anchors[number] = ProvenAnchor(
                signed.size, signed.root, part.block_number, part.block_time, beacons, part.state
            )
        return self._anchors[number]

    def state(self, number: int) -> ProvenState:
        """The bundle's state, read only as far as it proves itself."""
        if number not in self._states:
            part = self.bundle.states[number]
            self._states[number] = ProvenState(part.header, part.nodes)
        return self._states[number]

    def is_settled(self, number: int) -> bool:
        """Step 7: whether the state's block is final enough for the policy.

        Raises LedgerUnavailable when neither the trust file nor the chain vouches for the block, LedgerDisagrees when one of
        them
        has another block at that height.
        """
        header = self.state(number).header
        trusted = {block.number: block.hash for block in self.trust.blocks}
        for known, whose in ((trusted, "the trust file"), (self.facts.blocks, "the chain")):
            if header.number in known and known[header.number] != header.hash:
                raise LedgerDisagrees(
                    f"{whose} has another block {header.number} than the evidence: a re-org, another chain, or a lying node"
                )
        if header.number in trusted:
            return True
        if header.number not in self.facts.blocks:
            raise LedgerUnavailable(
                f"block {header.number} is not in the trust file: verify online, or run `scanseal trust update` first"
            )
        return header.number <= self.facts.settled

    def key_state(self, state: int, key: bytes) -> KeyState:
        """Step 8: what the registry says of a key in that state, with younger news from the trust file and the chain."""
        first, second = contracts.key_slots(key)
        registry, proven = self.trust.device_registry, self.state(state)
        known = KeyState.from_words(proven.word(registry, first), proven.word(registry, second))
        return self.with_news(key, known)

    def with_news(self, key: bytes, known: KeyState | None) -> KeyState:
        """A key's state with the earliest date that any trusted source gives for retirement and compromise."""
        fresh = self.facts.keys.get(key)
        if fresh is not None and known is not None and any(known.certificate) and fresh.certificate != known.certificate:
            raise LedgerDisagrees("the chain now names another certificate for the key than the proven state does")
        known = fresh or known or KeyState(bytes(32), 0, 0, 0, Role(0))
        news = [notice for notice in self.trust.keys if notice.key == key]
        return replace(
            known,
            retired_at=_earliest(known.retired_at, *(notice.retired_at for notice in news)),
            compromised_since=_earliest(known.compromised_since, *(notice.compromised_since for notice in news)),
        )

    def beacon_time(self, anchor: ProvenAnchor, number: int, block_hash: bytes) -> int | None:
        """The block time of a record's beacon, if it is proven to be a block of this chain; else None."""
        headers = self._beacon_headers()
        canonical = (
            Beacon(number, block_hash) in anchor.beacons
            or self.facts.blocks.get(number) == block_hash
            or any(block.number == number and block.hash == block_hash for block in self.trust.blocks)
        )
        if not canonical or not any(block_hash):
            return None
        return headers.get(block_hash)

    def _beacon_headers(self) -> dict[bytes, int]:
        """Block hash -> time of the bundle's beacon headers. A header that no record names is damage."""
        if self._header_times is None:
            headers = [stateproof.parse_header(header) for header in self.bundle.headers]
            named = {entry.record.beacon_hash for entry in self.bundle.entries}
            if any(header.hash not in named for header in headers):
                raise EvidenceInvalid("the bundle has a block header that is no record's beacon", "beacon")
            self._header_times = {header.hash: header.timestamp for header in headers}
        return self._header_times


def _earliest(*times: int) -> int:
    """The earliest of the times that are set (0 is never)."""
    return min(filter(None, times), default=0)


def _trusted_log(bundle: Bundle, trust: Trust) -> TrustedLog:
    ledger = bundle.ledger
    if ledger.chain_id != trust.chain_id:
        raise EvidenceInvalid(
            f"the evidence is for chain {ledger.chain_id}, the trust file for chain {trust.chain_id}", "ledger"
        )
    if (ledger.anchor_log, ledger.device_registry) != (trust.anchor_log.address, trust.device_registry.address):
        raise EvidenceInvalid("the evidence is for other contracts than the trust file's", "ledger")
    for log in trust.logs:
        if (log.log_id, log.origin, log.key) == (ledger.log_id, ledger.origin, ledger.log_key):
            return log
    raise EvidenceInvalid(f"the log {ledger.origin!r} is not in the trust file", "ledger")
