"""Local chains of real nodes, and the shipped contracts on them: anvil with the newest rules, ganache with those of `paris`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import decode
from eth_utils.abi import function_abi_to_4byte_selector
from eth_utils.conversions import to_bytes, to_hex
from web3 import HTTPProvider, Web3
from web3.contract import Contract
from web3.contract.contract import ContractFunction
from web3.types import RPCEndpoint

ROOT = Path(__file__).resolve().parents[2]
ARTEFACTS = ROOT / "ledger" / "chain" / "artefacts"
NODES = {
    "anvil": ("anvil", "--hardfork", "osaka", "--port", "{port}", "--silent"),
    "ganache": ("ganache", "--chain.hardfork", "merge", "--server.port", "{port}", "--logging.quiet"),
}
START_LIMIT_S = 60


def artefact(name: str) -> dict[str, Any]:
    """The artefact as the package ships it."""
    loaded: dict[str, Any] = json.loads((ARTEFACTS / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


@dataclass(frozen=True)
class Chain:
    """One running node. Its accounts are unlocked, so senders are addresses."""

    web3: Web3
    provider: HTTPProvider
    name: str

    @property
    def accounts(self) -> list[str]:
        return [str(account) for account in self.web3.eth.accounts]

    def deploy(self, name: str, *arguments: str) -> Contract:
        built = artefact(name)
        factory = self.web3.eth.contract(abi=built["abi"], bytecode=built["bytecode"])
        sent = factory.constructor(*arguments).transact({"from": self.accounts[0], "gas": 3_000_000})
        address = self.web3.eth.wait_for_transaction_receipt(sent)["contractAddress"]
        return factory(address=address)

    def send(self, call: ContractFunction, sender: str) -> Any:
        """The receipt of a transaction, whether it succeeded or not."""
        sent = call.transact({"from": sender, "gas": 3_000_000})
        return self.web3.eth.wait_for_transaction_receipt(sent)

    def do(self, call: ContractFunction, sender: str) -> Any:
        """The receipt of a transaction that succeeds."""
        receipt = self.send(call, sender)
        if receipt["status"] != 1:
            pytest.fail(f"{call.fn_name} of {sender} reverted: {self.refusal(call, sender)}")
        return receipt

    def refusal(self, call: ContractFunction, sender: str) -> tuple[Any, ...]:
        """(error, its values) of a call that reverts; () for one that does not."""
        question = {"from": sender, "to": call.address, "data": call._encode_transaction_data(), "gas": "0x2dc6c0"}
        answer: Any = self.provider.make_request(RPCEndpoint("eth_call"), [question, "latest"])
        if "error" not in answer:
            return ()
        reason = to_bytes(hexstr=answer["error"]["data"])
        for entry in call.contract_abi:
            if entry["type"] == "error" and function_abi_to_4byte_selector(entry) == reason[:4]:
                values = decode([field["type"] for field in entry["inputs"]], reason[4:])
                return (entry["name"], *values)
        return (to_hex(reason),)

    def word(self, contract: Contract, slot: bytes | int) -> int:
        """A storage word, as eth_getStorageAt gives it."""
        place = slot if isinstance(slot, int) else int.from_bytes(slot, "big")
        return int.from_bytes(self.web3.eth.get_storage_at(contract.address, place), "big")

    def mine(self, blocks: int) -> None:
        for _ in range(blocks):
            self.provider.make_request(RPCEndpoint("evm_mine"), [])


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running(name: str) -> Iterator[Chain]:
    """A fresh chain, whose node is killed at the end whatever happens."""
    binary = ROOT / "node_modules" / ".bin" / NODES[name][0]
    if not binary.exists():
        missing = f"{name} is missing: run `npm ci` in the repository's root"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    port = _free_port()
    command = [str(binary), *(option.format(port=port) for option in NODES[name][1:])]
    # A session of its own, since anvil's launcher would leave the node itself behind when killed alone.
    null = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=null, stdout=null, stderr=null, start_new_session=True) as node:
        try:
            provider = HTTPProvider(f"http://127.0.0.1:{port}")
            web3 = Web3(provider)
            give_up = time.monotonic() + START_LIMIT_S
            while not web3.is_connected():
                if node.poll() is not None or time.monotonic() > give_up:
                    pytest.fail(f"{name} did not start (exit code {node.poll()})")
                time.sleep(0.1)
            yield Chain(web3, provider, name)
        finally:
            os.killpg(node.pid, signal.SIGKILL)
