"""Sending one account's transactions: nonces, fees, and transactions that get stuck.

A transaction is sent, watched, and when no block takes it in time replaced by one with a higher fee, up to a ceiling that the
caller sets. Sending twice is harmless by design of the contracts: what was done is refused the second time (`NotTheHead`,
`AlreadyEnrolled` ...), so a crash or a silent node never needs more than to look and to repeat.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from ledger.chain.rpc import Call, Endpoint, Refusal, hexadecimal, members, octets, quantity
from ledger.core.errors import FixInput, LedgerDisagrees, LedgerUnavailable, ScanSealError, TryLater

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

TRANSACTION_GAS_LIMIT = 1 << 24
"""EIP-7825 (Osaka): no transaction may use more."""
_KNOWN = ("already known", "known transaction", "already imported")
_NONCE_USED = ("nonce too low", "correct nonce", "nonce is too low", "invalid nonce", "nonce_too_low")
_UNDERPRICED = ("underpriced", "gas price too low", "fee too low", "gas price not sufficient")
_POOR = ("insufficient funds", "insufficient balance", "enough funds", "upfront cost")

Explain = Callable[[bytes], ScanSealError]
"""Revert data -> the error to raise."""


class Outbox(Protocol):
    """Who remembers what was sent, so that no cost is forgotten and no transaction is sent beside one that is under way."""

    def note(self, transaction: bytes, nonce: int, most_wei: int) -> None:
        """Keeps a transaction's hash and the most that it can cost. Durable when it returns: only then it is sent."""

    def open_nonces(self) -> set[int]:
        """The nonces of noted transactions whose end is not known yet."""


@dataclass(frozen=True)
class FeePolicy:
    """How much to pay and how long to wait. `ceiling_wei` is the most for one unit of gas, tip included."""

    ceiling_wei: int = 200 * 10**9
    resend_after_s: float = 45.0
    give_up_after_s: float = 300.0
    poll_s: float = 0.2


@dataclass(frozen=True)
class Mined:
    """A transaction as its receipt has it: what one node says, not yet proven. `contract` is the address that it created."""

    transaction: bytes
    block_number: int
    block_hash: bytes
    gas_used: int
    fee_wei: int
    contract: bytes | None


@dataclass(frozen=True)
class _Plan:
    nonce: int
    gas: int
    price: int
    """The most for one unit of gas, in wei."""
    tip: int | None
    """EIP-1559 priority fee; None on a chain without base fee, where `price` is all."""
    ceiling: int
    """The most that `price` may become."""

    def bumped(self) -> _Plan:
        """A quarter more (nodes ask for a tenth to replace a transaction); nothing more of nothing."""
        price = min(self.price + -(-self.price // 4), max(self.ceiling, self.price))
        tip = None if self.tip is None else min(self.tip + -(-self.tip // 4), price)
        return replace(self, price=price, tip=tip)


class Sender:
    """Sends transactions of one account, one at a time (it holds a lock). Reads from the first endpoint, broadcasts to all.

    Raises LedgerUnavailable when no block took the transaction in time or the fee is over the ceiling, FixInput when the
    account cannot pay, and what the contract's refusal means (`Explain`). Once `stop` is set nothing more is sent or awaited:
    LedgerUnavailable.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        account: LocalAccount,
        chain_id: int,
        fees: FeePolicy | None = None,
        outbox: Outbox | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._endpoints, self._account, self._chain_id = tuple(endpoints), account, chain_id
        self._fees = fees or FeePolicy()
        self._outbox, self._stop = outbox, stop or threading.Event()
        self._lock = threading.Lock()

    @property
    def address(self) -> bytes:
        return bytes.fromhex(self._account.address[2:])

    def send(self, to: bytes | None, data: bytes, explain: Explain, most_wei: int | None = None) -> Mined:
        """Sends a call of contract `to`, or creates one with None, and waits until a block has it. With `most_wei` no
        transaction that is sent can cost more."""
        with self._lock:
            receipt = self._sent(to, data, explain, most_wei)
        if quantity(receipt.get("status"), "transaction's status") != 1:
            self._explain_failure(to, data, explain)
        created = receipt.get("contractAddress")
        return Mined(
            octets(receipt.get("transactionHash"), "transaction hash", 32),
            quantity(receipt.get("blockNumber"), "block number"),
            octets(receipt.get("blockHash"), "block hash", 32),
            quantity(receipt.get("gasUsed"), "gas used"),
            fee_of(receipt),
            None if created is None else octets(created, "contract address", 20),
        )

    def _sent(self, to: bytes | None, data: bytes, explain: Explain, most_wei: int | None) -> Any:
        """The receipt of whichever of our transactions for this call a block took."""
        plan = self._plan(to, data, explain, most_wei)
        hashes: list[bytes] = []
        give_up = time.monotonic() + self._fees.give_up_after_s
        while True:
            signed = self._signed(plan, to, data)
            self._go_on()
            if self._outbox is not None and signed[1] not in hashes:
                self._outbox.note(signed[1], plan.nonce, plan.gas * plan.price)
            sent, refusal = self._broadcast(signed)
            if sent not in hashes:
                hashes.append(sent)
            underpriced = refusal is not None and _says(refusal, _UNDERPRICED)
            patience = 0.0 if underpriced else self._fees.resend_after_s
            receipt, next_nonce = self._watch(hashes, plan.nonce, min(give_up, time.monotonic() + patience))
            if receipt is not None:
                return receipt
            if time.monotonic() >= give_up:
                raise LedgerUnavailable(
                    f"no block took transaction 0x{sent.hex()} within {self._fees.give_up_after_s:g} s: "
                    "the same command looks whether it came through, and sends it again if not"
                )
            if next_nonce > plan.nonce:  # another program with this account was first, and may have changed what we build on
                plan = self._plan(to, data, explain, most_wei)
            else:
                # Also fills the place of an older transaction of this account that is stuck before ours.
                bumped = plan.bumped()
                if underpriced and bumped == plan:
                    self._stop.wait(self._fees.poll_s)
                plan = replace(bumped, nonce=next_nonce)

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise LedgerUnavailable("stopped while a transaction was under way: the next run looks whether it came through")

    def _plan(self, to: bytes | None, data: bytes, explain: Explain, most_wei: int | None) -> _Plan:
        call: dict[str, str] = {"from": self._account.address, "data": hexadecimal(data)}
        if to is not None:
            call["to"] = hexadecimal(to)
        # In the place of a stuck transaction it builds on the chain without that one; nodes' defaults differ.
        at = () if self._outbox is None else ("latest",)
        node = self._endpoints[0]
        chain, used, nonce, gas, block, tip, price = node.batch(
            [
                Call("eth_chainId"),
                Call("eth_getTransactionCount", (self._account.address, "latest")),
                Call("eth_getTransactionCount", (self._account.address, "pending")),
                Call("eth_estimateGas", (call, *at)),
                Call("eth_getBlockByNumber", ("latest", False)),
                Call("eth_maxPriorityFeePerGas"),
                Call("eth_gasPrice"),
            ]
        )
        if quantity(chain, "chain id") != self._chain_id:
            raise LedgerDisagrees(f"{node.name} answers for another chain than {self._chain_id}: nothing was sent")
        if isinstance(gas, Refusal):
            raise self._why_not(gas, explain)
        latest = members(block, "latest block")
        limit = min(TRANSACTION_GAS_LIMIT, quantity(latest.get("gasLimit"), "block's gas limit"))
        needed = quantity(gas, "gas needed")
        if needed > limit:
            raise FixInput(f"the transaction needs {needed} gas, one may use {limit}: anchor fewer records or leaves at once")
        gas_limit = min(needed * 5 // 4 + 10_000, limit)
        cap, least, tip_cap = _prices(latest.get("baseFeePerGas"), tip, price)
        ceiling = self._fees.ceiling_wei
        if least > ceiling:
            raise LedgerUnavailable(
                f"a unit of gas costs {least / 1e9:g} gwei now, the ceiling is {ceiling / 1e9:g}: wait, or raise the ceiling"
            )
        if most_wei is not None and least * gas_limit > most_wei:
            raise LedgerUnavailable(
                f"the transaction may cost {least * gas_limit} wei now, {most_wei} are left of the budget: wait, or raise it"
            )
        if most_wei is not None:
            ceiling = min(ceiling, most_wei // gas_limit)
        return _Plan(self._next_nonce(used, nonce), gas_limit, min(cap, ceiling), tip_cap, ceiling)

    def _next_nonce(self, used: object, pending: object) -> int:
        """After all pending transactions; but in the place of one that a former run sent and that is stuck, so that of both
        only one is paid for."""
        first, last = quantity(used, "account's nonce"), quantity(pending, "account's nonce")
        is_ours = first < last and self._outbox is not None and first in self._outbox.open_nonces()
        return first if is_ours else last

    def _signed(self, plan: _Plan, to: bytes | None, data: bytes) -> tuple[bytes, bytes]:
        """(raw transaction, hash)."""
        fields: dict[str, Any] = {
            "chainId": self._chain_id,
            "nonce": plan.nonce,
            "gas": plan.gas,
            "value": 0,
            "data": data,
            "to": b"" if to is None else to,
        }
        if plan.tip is None:
            fields["gasPrice"] = plan.price
        else:
            fields |= {"type": 2, "maxFeePerGas": plan.price, "maxPriorityFeePerGas": plan.tip}
        signed = self._account.sign_transaction(fields)
        return bytes(signed.raw_transaction), bytes(signed.hash)

    def _broadcast(self, signed: tuple[bytes, bytes]) -> tuple[bytes, Refusal | None]:
        """Sends to every node; one that takes it is enough. Returns the hash, and what all refused it for, if they did.

        A node that is silent may have taken it: that is not an error here, since `_watch` looks.
        """
        raw, digest = signed
        refused: Refusal | None = None
        silent: LedgerUnavailable | None = None
        for endpoint in self._endpoints:
            try:
                answer = endpoint.batch([Call("eth_sendRawTransaction", (hexadecimal(raw),))])[0]
            except LedgerUnavailable as error:
                silent = error
                continue
            if not isinstance(answer, Refusal):
                if octets(answer, "transaction hash", 32) != digest:
                    raise LedgerDisagrees(f"{endpoint.name} names another hash for the transaction that it was sent")
                return digest, None
            if _says(answer, _KNOWN):
                return digest, None
            refused = answer
        if refused is None:
            if silent is not None and len(self._endpoints) == 1:
                raise silent
            return digest, None
        if _says(refused, _POOR):
            raise FixInput(f"account {self._account.address} cannot pay for the transaction: send it some of the chain's coin")
        if not _says(refused, _NONCE_USED) and not _says(refused, _UNDERPRICED):
            raise LedgerUnavailable(f"the node does not take the transaction: {refused.message}")
        return digest, refused

    def _watch(self, hashes: Sequence[bytes], nonce: int, until: float) -> tuple[Any, int]:
        """(receipt of one of `hashes` or None, the account's next nonce), at the latest at `until`.

        Returns early when the nonce was used by another transaction than ours: seen twice, since the node's answers to one
        batch may be of two blocks.
        """
        gone = 0
        while True:
            *receipts, count = self._endpoints[0].results(
                [
                    *(Call("eth_getTransactionReceipt", (hexadecimal(one),)) for one in hashes),
                    Call("eth_getTransactionCount", (self._account.address, "latest")),
                ]
            )
            mined = [_receipt(digest, receipt) for digest, receipt in zip(hashes, receipts, strict=True) if receipt is not None]
            if mined:
                # Two of ours are mined where one also took the place of a stuck transaction: the contract refuses the second.
                return max(mined, key=lambda receipt: quantity(receipt.get("status"), "transaction's status")), nonce + 1
            next_nonce = quantity(count, "account's nonce")
            gone = gone + 1 if next_nonce > nonce else 0
            if gone > 1 or time.monotonic() >= until:
                return None, min(next_nonce, nonce) if gone <= 1 else next_nonce
            self._stop.wait(self._fees.poll_s)
            self._go_on()

    def _why_not(self, refusal: Refusal, explain: Explain) -> ScanSealError:
        if refusal.reverted:
            return explain(refusal.reverted)
        if _says(refusal, _POOR):
            return FixInput(f"account {self._account.address} cannot pay for the transaction: send it some of the chain's coin")
        return LedgerUnavailable(f"the node cannot estimate the transaction: {refusal.message}")

    def _explain_failure(self, to: bytes | None, data: bytes, explain: Explain) -> None:
        """A transaction was taken and failed: says why, if it would fail again."""
        self._plan(to, data, explain, None)
        raise TryLater("the contract refused the transaction when its block came: the chain changed meanwhile, look and repeat")


def market(endpoint: Endpoint, account: bytes) -> tuple[int, int]:
    """(what a unit of gas costs in the next block, an account's balance), in wei: one node's word."""
    block, tip, price, balance = endpoint.batch(
        [
            Call("eth_getBlockByNumber", ("latest", False)),
            Call("eth_maxPriorityFeePerGas"),
            Call("eth_gasPrice"),
            Call("eth_getBalance", (hexadecimal(account), "latest")),
        ]
    )
    _, least, _ = _prices(members(block, "latest block").get("baseFeePerGas"), tip, price)
    return least, quantity(balance, "account's balance")


def fee_of(receipt: Mapping[str, Any]) -> int:
    """What a mined transaction cost in all, in wei: its node's word. A chain without prices says none."""
    price = quantity(receipt.get("effectiveGasPrice", "0x0"), "gas price")
    return price * quantity(receipt.get("gasUsed"), "gas used")


def _prices(base: object, tip: object, price: object) -> tuple[int, int, int | None]:
    """(a good offer for a unit of gas, what the next block takes at least, tip or None on a chain without base fee)."""
    if base is None:
        asked = quantity(price, "gas price")
        return asked, asked, None
    base_fee = quantity(base, "base fee")
    tip_cap = 0 if isinstance(tip, Refusal) else quantity(tip, "priority fee")
    return 2 * base_fee + tip_cap, base_fee + tip_cap, tip_cap


def _receipt(digest: bytes, receipt: object) -> Mapping[str, Any]:
    found = members(receipt, "receipt")
    if octets(found.get("transactionHash"), "receipt's transaction", 32) != digest:
        raise LedgerDisagrees("the node shows a receipt of another transaction")
    return found


def _says(refusal: Refusal, words: Sequence[str]) -> bool:
    """Whether a node's refusal is of a kind. There are no codes for it that nodes share, only wordings."""
    message = refusal.message.lower()
    return any(word in message for word in words)
