"""The ledger: AnchorLog and DeviceRegistry on one chain, read with proofs and written with one account. FORMAT.md §5.

Every fact comes out of contract storage by a state proof against a header that all named nodes agree on; events only say where
to look. A write returns when a block has it and the chain's storage shows what was written: a receipt alone is a node's word.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ledger.chain.contracts import Artefact, Event, artefact, beacons
from ledger.chain.reading import Depths, Finality, Heights, KnownBlock, Nodes
from ledger.chain.rpc import Call, Endpoint, hexadecimal, members, octets, quantity
from ledger.chain.transactions import FeePolicy, Mined, Outbox, Sender, fee_of, market
from ledger.core import contracts, evidence
from ledger.core.contracts import KeyState
from ledger.core.errors import FixInput, LedgerDisagrees
from ledger.core.records import Role
from ledger.core.trust import Contract, Facts, Trust
from ledger.log.anchoring import Market, Payment, Sighting, View

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

HEADS_SLOT = 0
"""Of `AnchorLog.heads[log]`: anchorer (160 bits, low end) and size (64 bits), then owner."""


@dataclass(frozen=True)
class Head:
    """Who owns and who writes a log (20 bytes each, zero for one that was never opened), and how many entries are anchored."""

    owner: bytes
    anchorer: bytes
    size: int


@dataclass(frozen=True)
class Receipt:
    """A transaction that a block has. Times are seconds since 1970; `fee_wei` is what it cost in all."""

    transaction: bytes
    block_number: int
    block_hash: bytes
    block_time: int
    gas_used: int
    fee_wei: int


@dataclass(frozen=True)
class LedgerState:
    """What the contracts held at one block, proven. `proof` is what a bundle carries of it.

    `keys`: key id -> KeyState, all zero for one that is not enrolled; `devices`: device id -> sealsEverythingSince, 0 for not;
    `anchors`: (log id, size) -> commitment, 32 zero bytes for none; `heads`: log id -> Head.
    """

    block: KnownBlock
    proof: evidence.State
    keys: Mapping[bytes, KeyState]
    devices: Mapping[bytes, int]
    anchors: Mapping[tuple[bytes, int], bytes]
    heads: Mapping[bytes, Head]


@dataclass(frozen=True)
class EnrolledKey:
    """A key of the registry, with the device it was enrolled for and since when that device seals everything (0 for not)."""

    key: bytes
    device: bytes
    state: KeyState
    seals_everything_since: int


@dataclass(frozen=True)
class Deployment:
    """Freshly deployed contracts and the chain they are on."""

    chain_id: int
    genesis_hash: bytes
    anchor_log: Contract
    device_registry: Contract


class Ledger:
    """One ledger. Reads need no account; writes raise FixInput without one.

    Methods raise LedgerUnavailable (a node is silent: ask again) or LedgerDisagrees (a node contradicts a proof, another node
    or the trust file); nothing is lost by either. Writes also raise NeedPermission where the account may not, FixInput where
    the contract refuses for good, TryLater where the chain changed meanwhile.
    """

    def __init__(
        self,
        nodes: Nodes,
        anchor_log: Contract,
        device_registry: Contract,
        *,
        sender: Sender | None = None,
        finality: Finality = "final",
    ) -> None:
        self._nodes, self._anchor_log, self._registry = nodes, anchor_log, device_registry
        self._sender, self._finality = sender, finality
        self._log_artefact, self._registry_artefact = artefact("AnchorLog"), artefact("DeviceRegistry")
        self._seen: dict[tuple[bytes, int], int] = {}

    @classmethod
    def connect(
        cls,
        endpoints: Sequence[Endpoint],
        trust: Trust,
        account: LocalAccount | None = None,
        *,
        fees: FeePolicy | None = None,
        depths: Depths | None = None,
        outbox: Outbox | None = None,
        stop: threading.Event | None = None,
    ) -> Ledger:
        """The trust file's ledger, after asking every node whether it is that chain and the contracts are those.

        `outbox` keeps what is sent; once `stop` is set no transaction is sent or awaited any more.
        """
        nodes = Nodes(endpoints, trust.chain_id, trust.genesis_hash, depths)
        nodes.identity()
        sender = None if account is None else Sender(endpoints, account, trust.chain_id, fees, outbox, stop)
        ledger = cls(nodes, trust.anchor_log, trust.device_registry, sender=sender, finality=trust.policy.finality)
        ledger.facts_at(nodes.heights().included)
        return ledger

    # ---- reading ----------------------------------------------------------------------------------------------------

    def heights(self) -> Heights:
        """How far the chain has come, and how far it is safe and final."""
        return self._nodes.heights()

    def beacon(self) -> KnownBlock:
        """The newest block: what is signed with its hash was not signed before it."""
        newest = self._nodes.heights().included
        return self._nodes.blocks([newest])[newest]

    def blocks(self, numbers: Iterable[int]) -> dict[int, KnownBlock]:
        """Canonical block headers; numbers that do not exist yet are left out."""
        return self._nodes.blocks(numbers)

    def final_blocks(self, numbers: Iterable[int]) -> tuple[int, dict[int, bytes]]:
        """(newest final block, its hash and those of the numbers up to it)."""
        final = self._nodes.heights().final
        known = self._nodes.blocks({final, *(number for number in numbers if number <= final)})
        return final, {number: block.header.hash for number, block in known.items()}

    def facts_at(
        self,
        number: int,
        keys: Sequence[bytes] = (),
        devices: Sequence[bytes] = (),
        sizes: Sequence[tuple[bytes, int]] = (),
        logs: Sequence[bytes] = (),
    ) -> LedgerState:
        """What the contracts held at block `number`: registry keys, devices, anchors as (log id, size), heads of logs.

        One HTTP request (to each node, for its header). Both contracts' code is checked each time.
        """
        log_slots = [contracts.anchor_slot(log, size) for log, size in sizes]
        log_slots += [slot for log in logs for slot in _head_slots(log)]
        registry_slots = [slot for key in keys for slot in contracts.key_slots(key)]
        registry_slots += [contracts.device_slot(device) for device in devices]
        state = self._nodes.state(number, {self._anchor_log: log_slots, self._registry: registry_slots})

        def registry(slot: bytes) -> int:
            return state.word(self._registry, slot)

        def anchor_log(slot: bytes) -> int:
            return state.word(self._anchor_log, slot)

        return LedgerState(
            KnownBlock(state.header, state.proof.header),
            state.proof,
            {key: KeyState.from_words(*map(registry, contracts.key_slots(key))) for key in keys},
            {device: registry(contracts.device_slot(device)) for device in devices},
            {(log, size): anchor_log(contracts.anchor_slot(log, size)).to_bytes(32, "big") for log, size in sizes},
            {log: _head(*map(anchor_log, _head_slots(log))) for log in logs},
        )

    def latest(
        self, keys: Sequence[bytes] = (), devices: Sequence[bytes] = (), sizes: Sequence[tuple[bytes, int]] = ()
    ) -> LedgerState:
        """`facts_at` the newest block."""
        return self.facts_at(self._nodes.heights().included, keys, devices, sizes)

    def facts(self, blocks: Sequence[int], keys: Sequence[bytes], devices: Sequence[bytes]) -> Facts:
        """What a verifier asks today: hashes of blocks, how far the chain is settled by the trust file's policy, and the newest
        words of the registry. Three HTTP requests, however many images they are for."""
        heights = self._nodes.heights()
        now = self.facts_at(heights.included, keys, devices)
        known = {number: block.header.hash for number, block in self._nodes.blocks(blocks).items()}
        known[now.block.header.number] = now.block.header.hash
        return Facts(known, heights.settled(self._finality), now.keys, now.devices)

    def key_state(self, key: bytes) -> KeyState:
        """What the registry says of a key now; all zero for one that was never enrolled."""
        return self.latest([key]).keys[key]

    def enrolled(self, first_block: int = 0) -> list[EnrolledKey]:
        """The registry's keys in the order of enrolment, found by events from `first_block` on, with their state now.

        What is said of a key is proven; that no key is left out is not, since a node may keep events to itself.
        """
        newest = self._nodes.heights().included
        topic = self._registry_artefact.topic("KeyEnrolled")
        ranges = list(self._nodes.events(self._registry, self._registry_artefact, [topic], first_block, newest))
        devices: dict[bytes, bytes] = {
            event.values["key"]: event.values["device"] for events in reversed(ranges) for event in events
        }
        state = self.facts_at(newest, list(devices), sorted(set(devices.values())))
        return [EnrolledKey(key, device, state.keys[key], state.devices[device]) for key, device in devices.items()]

    def head(self, log: bytes) -> Head:
        """Owner, anchorer and anchored size of a log in the newest block."""
        return self.facts_at(self._nodes.heights().included, logs=[log]).heads[log]

    def anchored_size(self, log_id: bytes) -> int:
        """The head's size in the newest block."""
        return self.head(log_id).size

    def view(self, log_id: bytes, sizes: Sequence[int], keys: Sequence[bytes]) -> View:
        """What an anchoring site has to know of the chain at its newest block; two HTTP requests, however much it is."""
        heights = self._nodes.heights()
        state = self.facts_at(heights.included, keys, sizes=[(log_id, size) for size in sizes], logs=[log_id])
        return View(
            state.heads[log_id].size,
            {size: state.anchors[log_id, size] for size in sizes},
            heights.safe,
            heights.final,
            frozenset(key for key, known in state.keys.items() if known.compromised_since),
        )

    def market(self, account: bytes | None = None) -> Market:
        """What a unit of gas costs now, and what an account (20 bytes; None: the one that writes) has; one node's word."""
        return Market(*market(self._nodes.endpoints[0], account or self._writer().address))

    def payments(self, transactions: Sequence[bytes]) -> tuple[int, list[Payment | None]]:
        """(this account's next nonce in the newest final block, what each of these transactions cost: None for one that is in
        no block). One node's word."""
        final = self._nodes.heights().final
        account = hexadecimal(self._writer().address)
        nonce, *receipts = self._nodes.endpoints[0].results(
            [
                Call("eth_getTransactionCount", (account, hexadecimal(final))),
                *(Call("eth_getTransactionReceipt", (hexadecimal(one),)) for one in transactions),
            ]
        )
        return quantity(nonce, "account's nonce"), [_payment(receipt, final) for receipt in receipts]

    def sighting(self, log_id: bytes, new_size: int, beacons: Sequence[int] = ()) -> Sighting | None:  # noqa: ARG002
        """Where the anchor for a size is now; None when the chain has none (never sent, dropped, or re-orged away).

        The event that tells root and beacons is believed because it hashes to the commitment in storage.
        """
        found = self._anchor(log_id, new_size)
        return None if found is None else found[1]

    def proof(self, log_id: bytes, size: int, keys: Sequence[bytes]) -> evidence.State:
        """A state proof of an anchor and of keys, at the newest final block."""
        return self.facts_at(self._nodes.heights().final, keys, (), [(log_id, size)]).proof

    # ---- writing ----------------------------------------------------------------------------------------------------

    def open_log(self, log_key: bytes, anchorer: bytes | None = None) -> bytes:
        """Opens the log of an Ed25519 public key (32 bytes) for this account, who anchors unless `anchorer` shall; its id.

        A log that is open already is left as it is.
        """
        sender = self._writer()
        log = contracts.log_id(sender.address, log_key)
        if any(self.head(log).owner):
            return log
        writer = anchorer or sender.address
        self._write(self._anchor_log, self._log_artefact, "open", hashlib.sha256(log_key).digest(), hexadecimal(writer))
        if not any(self.head(log).owner):
            raise _unwritten("the log is not open")
        return log

    def set_anchorer(self, log: bytes, anchorer: bytes) -> Receipt:
        """Lets another account (20 bytes) anchor a log of this account."""
        receipt = self._write(self._anchor_log, self._log_artefact, "setAnchorer", log, hexadecimal(anchorer))
        if self.facts_at(receipt.block_number, logs=[log]).heads[log].anchorer != anchorer:
            raise _unwritten("the log has another anchorer")
        return receipt

    def anchor(
        self,
        log_id: bytes,
        old_size: int,
        new_size: int,
        root: bytes,
        beacons: Sequence[int],
        leaves: Sequence[bytes] | None = None,
        most_wei: int | None = None,
    ) -> Receipt:
        """Anchors a checkpoint on top of the head and waits until a block has it. With `leaves` they go into the calldata;
        no transaction may cost more than `most_wei`."""
        arguments: list[Any] = [log_id, old_size, new_size, root, list(beacons)]
        function = "anchor" if leaves is None else "anchorWithLeaves"
        arguments += [] if leaves is None else [list(leaves)]
        receipt = self._write(self._anchor_log, self._log_artefact, function, *arguments, most_wei=most_wei)
        self._seen[log_id, new_size] = receipt.block_number
        found = self._anchor(log_id, new_size)
        if found is None or found[0].values["root"] != root or found[1].block_hash != receipt.block_hash:
            raise _unwritten("the anchor is not in the AnchorLog")
        return receipt

    def enrol(self, key: bytes, certificate: bytes, device: bytes, roles: Role) -> Receipt:
        """Enrols a key for ever, from the block's time on. 32 bytes each: key id, certificate fingerprint, device id."""
        receipt = self._registry_write("enrol", key, certificate, device, int(roles))
        expected = KeyState(certificate, receipt.block_time, 0, 0, roles)
        if self.facts_at(receipt.block_number, [key]).keys[key] != expected:
            raise _unwritten("the key is not enrolled so")
        return receipt

    def rotate(self, old_key: bytes, new_key: bytes, certificate: bytes, device: bytes) -> Receipt:
        """Retires a key now and enrols another with the same roles."""
        receipt = self._registry_write("rotate", old_key, new_key, certificate, device)
        keys = self.facts_at(receipt.block_number, [old_key, new_key]).keys
        expected = KeyState(certificate, receipt.block_time, 0, 0, keys[old_key].roles)
        if keys[old_key].retired_at != receipt.block_time or keys[new_key] != expected:
            raise _unwritten("the key is not rotated")
        return receipt

    def retire(self, key: bytes) -> Receipt:
        """Retires a key now: what it signed until then stays good."""
        receipt = self._registry_write("retire", key)
        if self.facts_at(receipt.block_number, [key]).keys[key].retired_at != receipt.block_time:
            raise _unwritten("the key is not retired")
        return receipt

    def revoke(self, key: bytes, compromised_since: int) -> Receipt:
        """States since when (seconds since 1970) a key is not to be believed."""
        receipt = self._registry_write("revoke", key, compromised_since)
        if self.facts_at(receipt.block_number, [key]).keys[key].compromised_since != compromised_since:
            raise _unwritten("the key is not revoked")
        return receipt

    def set_seals_everything_since(self, device: bytes, since: int) -> Receipt:
        """States since when a device seals everything it makes; 0 takes it back."""
        receipt = self._registry_write("setSealsEverythingSince", device, since)
        if self.facts_at(receipt.block_number, (), [device]).devices[device] != since:
            raise _unwritten("the device's date is another")
        return receipt

    # ---- within -----------------------------------------------------------------------------------------------------

    def _anchor(self, log: bytes, size: int) -> tuple[Event, Sighting] | None:
        """The event of an anchor and where it is, held against the commitment in storage; None where storage has none."""
        heights = self._nodes.heights()
        stored = self.facts_at(heights.included, sizes=[(log, size)]).anchors[log, size]
        if not any(stored):
            self._seen.pop((log, size), None)
            return None
        event = self._anchor_event(log, size, heights.included)
        block = self._nodes.blocks([event.block_number]).get(event.block_number)
        looked_up = beacons(event.values["beacons"])
        if block is None or block.header.hash != event.block_hash:
            raise LedgerDisagrees(f"the node has the anchor for size {size} in a block that is not on the chain")
        number, time = block.header.number, block.header.timestamp
        if contracts.anchor_commitment(event.values["root"], event.values["oldSize"], number, time, looked_up) != stored:
            raise LedgerDisagrees(f"the node's event of the anchor for size {size} is not what the AnchorLog holds")
        self._seen[log, size] = number
        receipt = self._receipt_of(event)
        return event, Sighting(
            event.values["oldSize"],
            number,
            block.header.hash,
            time,
            quantity(receipt.get("gasUsed"), "gas used"),
            fee_of(receipt),
            event.values["root"],
            looked_up,
            heights.finality(number),
        )

    def _anchor_event(self, log: bytes, size: int, newest: int) -> Event:
        topics = [self._log_artefact.topic("Anchored"), log, size.to_bytes(32, "big")]
        seen = self._seen.get((log, size), newest + 1)
        ranges = [(seen, seen)] if seen <= newest else []
        for first, last in (*ranges, (0, newest)):
            for events in self._nodes.events(self._anchor_log, self._log_artefact, topics, first, last):
                if events:
                    return events[-1]
        raise LedgerDisagrees(f"the AnchorLog holds an anchor for size {size}, and the node keeps its event to itself")

    def _receipt_of(self, event: Event) -> Mapping[str, Any]:
        answer = self._nodes.endpoints[0].call("eth_getTransactionReceipt", hexadecimal(event.transaction))
        receipt = members(answer, "receipt of an anchor")
        if octets(receipt.get("blockHash"), "receipt's block", 32) != event.block_hash:
            raise LedgerDisagrees("the node has the anchor's transaction in another block than its event")
        return receipt

    def _registry_write(self, function: str, *arguments: Any) -> Receipt:
        return self._write(self._registry, self._registry_artefact, function, *arguments)

    def _write(self, contract: Contract, its: Artefact, function: str, *arguments: Any, most_wei: int | None = None) -> Receipt:
        mined = self._writer().send(contract.address, its.call_data(function, *arguments), its.refusal, most_wei)
        return _confirmed(self._nodes, mined)

    def _writer(self) -> Sender:
        if self._sender is None:
            raise FixInput("the ledger was opened for reading: writing needs a chain account")
        return self._sender


def deploy(
    endpoints: Sequence[Endpoint], account: LocalAccount, admin: bytes | None = None, fees: FeePolicy | None = None
) -> Deployment:
    """Deploys both contracts; `account` becomes registrar, and admin too unless another (20 bytes) is named."""
    nodes = Nodes(endpoints)
    chain_id, genesis_hash = nodes.identity()
    nodes = Nodes(endpoints, chain_id, genesis_hash)
    sender = Sender(endpoints, account, chain_id, fees)
    arguments = (hexadecimal(admin or sender.address), hexadecimal(sender.address))
    made = [
        _deployed(nodes, sender, artefact("AnchorLog"), ()),
        _deployed(nodes, sender, artefact("DeviceRegistry"), arguments),
    ]
    return Deployment(chain_id, genesis_hash, *made)


def code_hashes(nodes: Nodes, addresses: Sequence[bytes]) -> list[bytes]:
    """The proven code hashes at addresses in the newest block: for someone who is about to trust what stands there."""
    return nodes.code_hashes(nodes.heights().included, addresses)


def _deployed(nodes: Nodes, sender: Sender, its: Artefact, arguments: Sequence[Any]) -> Contract:
    mined = sender.send(None, its.deployment(*arguments), its.refusal)
    receipt = _confirmed(nodes, mined)
    if mined.contract is None:
        raise LedgerDisagrees(f"the node's receipt of the deployment names no address of {its.name}")
    contract = Contract(address=mined.contract, code_hash=its.code_hash)
    nodes.state(receipt.block_number, {contract: ()})
    return contract


def _confirmed(nodes: Nodes, mined: Mined) -> Receipt:
    """The receipt, if all nodes have its block."""
    header = nodes.agreed({mined.block_number: mined.block_hash})[mined.block_number].header
    return Receipt(mined.transaction, header.number, header.hash, header.timestamp, mined.gas_used, mined.fee_wei)


def _payment(receipt: object, final: int) -> Payment | None:
    if receipt is None:
        return None
    found = members(receipt, "receipt")
    return Payment(fee_of(found), quantity(found.get("blockNumber"), "block number") <= final)


def _head_slots(log: bytes) -> tuple[bytes, bytes]:
    first = contracts.mapping_slot(log, HEADS_SLOT.to_bytes(32, "big"))
    return first, (int.from_bytes(first, "big") + 1).to_bytes(32, "big")


def _head(packed: int, owner: int) -> Head:
    return Head(owner.to_bytes(32, "big")[12:], (packed & ((1 << 160) - 1)).to_bytes(20, "big"), packed >> 160)


def _unwritten(what: str) -> LedgerDisagrees:
    return LedgerDisagrees(
        f"a receipt says that the transaction succeeded, and {what}: a re-org or a lying node; look and repeat"
    )
