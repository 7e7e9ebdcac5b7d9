"""What the chain says, as far as it can be checked: headers that hash to their names, storage that is proven, nodes that agree.

Nothing is believed because a node says so. Headers are recomputed, storage is read through state proofs against them, and where
several nodes are named all of them must have the same block. What one node alone could still invent is a whole chain of its
own: against that stand the trust file's blocks and a second node.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from ledger.chain.contracts import Artefact, Event
from ledger.chain.rpc import Call, Endpoint, Refusal, hexadecimal, members, octets, quantity
from ledger.core import evidence, stateproof
from ledger.core.errors import EvidenceInvalid, FixInput, LedgerDisagrees, LedgerUnavailable
from ledger.core.stateproof import Header
from ledger.core.trust import Contract
from ledger.core.typeddata import keccak256

Finality = Literal["included", "safe", "final"]

LAG = 12
"""Blocks that one node may be behind another."""
AGAIN_AFTER_S = 0.2
PROOF_SLOTS = 256
"""Storage slots in one `eth_getProof`; nodes limit this (Geth at 1,024)."""
EVENT_SPAN = 5_000
"""Blocks searched for events in one question at first; halved where a node finds that too many."""
_SPANS_AT_ONCE = 8


@dataclass(frozen=True)
class Depths:
    """How many blocks deep a block counts as safe and as final, on chains that do not say so themselves.

    `final` should stay below the 128 blocks whose states a pruned node keeps.
    """

    safe: int = 6
    final: int = 24


@dataclass(frozen=True)
class Heights:
    """The highest block numbers, now, with each degree of finality; the lowest that any node says."""

    included: int
    safe: int
    final: int

    def finality(self, number: int) -> Finality:
        """Of a block that is on the chain."""
        if number <= self.final:
            return "final"
        return "safe" if number <= self.safe else "included"

    def settled(self, finality: Finality) -> int:
        """The highest block number of at least this finality."""
        return {"included": self.included, "safe": self.safe, "final": self.final}[finality]


@dataclass(frozen=True)
class KnownBlock:
    """A block header that all nodes agree on; `rlp` hashes to `header.hash`."""

    header: Header
    rlp: bytes


class Nodes:
    """One or several nodes of one chain. Storage and events come from the first, blocks from all.

    Raises LedgerUnavailable where any of them does not answer, and LedgerDisagrees where one contradicts another, a proof, or
    the chain id and genesis hash that were given (None: not known yet).
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        chain_id: int | None = None,
        genesis_hash: bytes | None = None,
        depths: Depths | None = None,
        event_span: int = EVENT_SPAN,
    ) -> None:
        if not endpoints:
            raise FixInput("no RPC URL: name at least one node of the chain")
        self.endpoints = tuple(endpoints)
        self._chain_id, self._genesis_hash, self._depths = chain_id, genesis_hash, depths or Depths()
        self._event_span = event_span

    def identity(self) -> tuple[int, bytes]:
        """(chain id, genesis hash), the same at all nodes and, where given, the expected ones."""
        chain_ids = {quantity(endpoint.call("eth_chainId"), "chain id") for endpoint in self.endpoints}
        if len(chain_ids) != 1:
            raise LedgerDisagrees(
                f"the nodes are of different chains ({', '.join(map(str, sorted(chain_ids)))}): check the URLs"
            )
        (chain_id,) = chain_ids
        self._check_chain_id(self.endpoints[0], chain_id)
        genesis = self.blocks([0])[0].header.hash
        if self._genesis_hash is not None and genesis != self._genesis_hash:
            raise LedgerDisagrees(
                f"{self.endpoints[0].name} has the genesis block 0x{genesis.hex()}, the trust file another: same chain id, "
                "another chain (a devnet that was started anew?); use its node's URL, or deploy again"
            )
        return chain_id, genesis

    def heights(self) -> Heights:
        """How far the chain has come."""
        known = [self._heights(endpoint) for endpoint in self.endpoints]
        included, safe, final = (min(column) for column in zip(*known, strict=True))
        for endpoint, (newest, _, _) in zip(self.endpoints, known, strict=True):
            behind = max(column[0] for column in known) - newest
            if behind > LAG:
                # An old head hides revocations, so the one node that is behind must not decide for all.
                raise LedgerUnavailable(f"{endpoint.name} is {behind} blocks behind the others: wait, or name another node")
        return Heights(included, min(safe, included), min(final, safe, included))

    def blocks(self, numbers: Iterable[int]) -> dict[int, KnownBlock]:
        """The canonical block of each number, agreed; numbers that no node has yet are left out."""
        wanted = sorted(set(numbers))
        answers = [endpoint.results([_block_call(number) for number in wanted]) for endpoint in self.endpoints]
        found: dict[int, KnownBlock] = {}
        for number, *views in zip(wanted, *answers, strict=True):
            if any(view is not None for view in views):
                found[number] = self._agreed(number, views)
        return found

    def agreed(self, hashes: Mapping[int, bytes]) -> dict[int, KnownBlock]:
        """The blocks that somebody named by number and hash. Raises LedgerDisagrees where one of them is not on the chain."""
        known = self.blocks(hashes)
        for number, expected in hashes.items():
            if number not in known or known[number].header.hash != expected:
                raise LedgerDisagrees(f"the chain has another block {number} than 0x{expected.hex()}: a re-org or a lying node")
        return known

    def state(self, number: int, wanted: Mapping[Contract, Sequence[bytes]]) -> KnownState:
        """The storage slots (32 bytes each) of contracts at a block, in one round to each node, as a proof and to be read.

        A false answer is asked for once more: a node that makes a block meanwhile (anvil) may answer from that one.
        Raises LedgerDisagrees where a contract is not there, or has other code than the trusted one.
        """
        try:
            return self._state(number, wanted)
        except LedgerDisagrees:
            time.sleep(AGAIN_AFTER_S)
            return self._state(number, wanted)

    def _state(self, number: int, wanted: Mapping[Contract, Sequence[bytes]]) -> KnownState:
        block = hexadecimal(number)
        requests = [
            (contract, Call("eth_getProof", (hexadecimal(contract.address), [hexadecimal(slot) for slot in part], block)))
            for contract, slots in wanted.items()
            for part in _parts(slots)
        ]
        first, *others = self.endpoints
        chain_id, view, *proofs = first.results(
            [Call("eth_chainId"), _block_call(number), *(call for _, call in requests)],
        )
        self._check_chain_id(first, quantity(chain_id, "chain id"))
        known = self._agreed(number, [view, *(endpoint.results([_block_call(number)])[0] for endpoint in others)])
        nodes: dict[bytes, None] = {}
        for proof in proofs:
            nodes.update(dict.fromkeys(_proof_nodes(proof)))
        state = evidence.State(header=known.rlp, nodes=tuple(nodes))
        return KnownState(state, known.header, wanted)

    def code_hashes(self, number: int, addresses: Sequence[bytes]) -> list[bytes]:
        """Hashes of the code that stands at addresses at a block, proven. Raises LedgerDisagrees where there is none."""
        calls = [Call("eth_getProof", (hexadecimal(address), [], hexadecimal(number))) for address in addresses]
        root = self.blocks([number])[number].header.state_root
        found = []
        for address, proof in zip(addresses, self.endpoints[0].results(calls), strict=True):
            nodes = {keccak256(node): node for node in _proof_nodes(proof)}
            with _false_proof(number):
                found.append(stateproof.verify_account(root, address, nodes).code_hash)
            if found[-1] == stateproof.EMPTY_CODE:
                raise LedgerDisagrees(f"no contract stands at {hexadecimal(address)}: is the node of the right chain?")
        return found

    def events(
        self, contract: Contract, artefact: Artefact, topics: Sequence[bytes | None], first: int, last: int
    ) -> Iterable[list[Event]]:
        """Events of blocks `first` to `last`, newest range first, in lists that are in the chain's order; asked range by range.

        What events say is a hint where to look: nothing proves that none was left out.
        """
        span, upper = self._event_span, last
        while upper >= first:
            ranges = [(max(first, top - span + 1), top) for top in range(upper, first - 1, -span)][:_SPANS_AT_ONCE]
            answers = self.endpoints[0].batch([_events_call(contract, topics, *one) for one in ranges])
            for (lower, top), answer in zip(ranges, answers, strict=True):
                if isinstance(answer, Refusal):
                    if span == 1:
                        raise LedgerUnavailable(f"{self.endpoints[0].name} refuses eth_getLogs: {answer.message}")
                    span = max(1, span // 2)
                    break
                if not isinstance(answer, list):
                    raise LedgerDisagrees("the node gives no list of events")
                yield [_event(contract, artefact, entry, lower, top) for entry in answer]
                upper = lower - 1

    def _heights(self, endpoint: Endpoint) -> tuple[int, int, int]:
        chain_id, latest, safe, final = endpoint.batch(
            [Call("eth_chainId"), *(Call("eth_getBlockByNumber", (tag, False)) for tag in ("latest", "safe", "finalized"))]
        )
        if isinstance(latest, Refusal) or isinstance(chain_id, Refusal):
            raise LedgerUnavailable(f"{endpoint.name} does not name its newest block")
        self._check_chain_id(endpoint, quantity(chain_id, "chain id"))
        newest = self._own(endpoint, latest).header.number
        numbers = [newest]
        for tagged, depth in ((safe, self._depths.safe), (final, self._depths.final)):
            has_tag = tagged is not None and not isinstance(tagged, Refusal)
            numbers.append(self._own(endpoint, tagged).header.number if has_tag else max(0, newest - depth))
        return numbers[0], numbers[1], numbers[2]

    def _agreed(self, number: int, views: Sequence[Any]) -> KnownBlock:
        for endpoint, view in zip(self.endpoints, views, strict=True):
            if view is None:
                raise LedgerUnavailable(f"{endpoint.name} has no block {number} (yet): wait until it has caught up")
        known = [self._own(endpoint, view) for endpoint, view in zip(self.endpoints, views, strict=True)]
        for endpoint, block in zip(self.endpoints, known, strict=True):
            if block.header.number != number:
                raise LedgerDisagrees(f"{endpoint.name} shows block {block.header.number} as block {number}")
            if block.header.hash != known[0].header.hash:
                raise LedgerDisagrees(
                    f"{self.endpoints[0].name} and {endpoint.name} have different blocks {number}: a re-org or a lying node"
                )
        return known[0]

    def _own(self, endpoint: Endpoint, view: object) -> KnownBlock:
        """One node's block, whose header hashes to the name that it gives."""
        try:
            rlp = stateproof.header_rlp(members(view, "block"))
            return KnownBlock(stateproof.parse_header(rlp), rlp)
        except EvidenceInvalid as error:
            raise LedgerDisagrees(f"{endpoint.name}: {error}") from error

    def _check_chain_id(self, endpoint: Endpoint, chain_id: int) -> None:
        if self._chain_id is not None and chain_id != self._chain_id:
            raise LedgerDisagrees(
                f"{endpoint.name} is a node of chain {chain_id}, the trust file names chain {self._chain_id}: check the RPC URL"
            )


class KnownState:
    """Storage of some contracts at one block, proven. `proof` is what an evidence bundle carries of it.

    Constructing it raises LedgerDisagrees where a contract is not there, is not the trusted one, or a slot is not proven.
    """

    def __init__(self, proof: evidence.State, header: Header, wanted: Mapping[Contract, Sequence[bytes]]) -> None:
        self.proof, self.header = proof, header
        nodes = {keccak256(node): node for node in proof.nodes}
        self._words: dict[tuple[Contract, bytes], int] = {}
        for contract, slots in wanted.items():
            with _false_proof(header.number):
                account = stateproof.verify_account(header.state_root, contract.address, nodes)
            self._check_code(contract, account.code_hash)
            with _false_proof(header.number):
                for slot in slots:
                    self._words[contract, slot] = stateproof.verify_storage(account.storage_root, slot, nodes)

    def word(self, contract: Contract, slot: bytes) -> int:
        """A storage word that was asked for."""
        return self._words[contract, slot]

    def _check_code(self, contract: Contract, code_hash: bytes) -> None:
        address = hexadecimal(contract.address)
        if code_hash == stateproof.EMPTY_CODE:
            raise LedgerDisagrees(
                f"no contract stands at {address} at block {self.header.number}: is this the chain that the trust file means "
                "(a devnet that was started anew?); else run `scanseal deploy`"
            )
        if code_hash != contract.code_hash:
            raise LedgerDisagrees(
                f"the contract at {address} is another one than the trust file's: its code hashes to 0x{code_hash.hex()}; get "
                "the trust file from who runs the ledger, or deploy again"
            )


@contextmanager
def _false_proof(number: int) -> Iterator[None]:
    """A node's proof that proves nothing is the node's fault."""
    try:
        yield
    except EvidenceInvalid as error:
        raise LedgerDisagrees(f"the node's state proof at block {number} is false: {error}") from error


def _block_call(number: int) -> Call:
    return Call("eth_getBlockByNumber", (hexadecimal(number), False))


def _events_call(contract: Contract, topics: Sequence[bytes | None], lower: int, upper: int) -> Call:
    return Call(
        "eth_getLogs",
        (
            {
                "address": hexadecimal(contract.address),
                "topics": [None if topic is None else hexadecimal(topic) for topic in topics],
                "fromBlock": hexadecimal(lower),
                "toBlock": hexadecimal(upper),
            },
        ),
    )


def _event(contract: Contract, artefact: Artefact, entry: object, lower: int, upper: int) -> Event:
    found = members(entry, "event")
    number = quantity(found.get("blockNumber"), "event's block")
    if octets(found.get("address"), "event's contract", 20) != contract.address or not lower <= number <= upper:
        raise LedgerDisagrees("the node shows an event of another contract or block than it was asked for")
    topics = found.get("topics")
    if not isinstance(topics, list):
        raise LedgerDisagrees("the node shows an event without topics")
    return artefact.event(
        [octets(topic, "event's topic", 32) for topic in topics],
        octets(found.get("data"), "event"),
        (number, octets(found.get("blockHash"), "event's block", 32)),
        octets(found.get("transactionHash"), "event's transaction", 32),
    )


def _parts(slots: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
    """At least one part: the account itself is always proven."""
    return [slots[start : start + PROOF_SLOTS] for start in range(0, max(1, len(slots)), PROOF_SLOTS)]


def _proof_nodes(proof: object) -> Iterable[bytes]:
    """The trie nodes of an `eth_getProof` answer; what they prove is for `stateproof` to find out."""
    found = members(proof, "state proof")
    storage = found.get("storageProof")
    lists = [found.get("accountProof")]
    lists += [members(entry, "storage proof").get("proof") for entry in storage] if isinstance(storage, list) else [None]
    for nodes in lists:
        if not isinstance(nodes, list):
            raise LedgerDisagrees("the node gives no state proof where it was asked for one")
        for node in nodes:
            yield octets(node, "trie node")
