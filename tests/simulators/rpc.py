"""A node that lies and fails on demand: an HTTP proxy in front of a real one, with switches for its faults.

    with FaultyNode(anvil_url) as node:
        node.fault = "false root"
        ...  # a client of node.url now gets state proofs with another value in the leaf

Everything that no switch concerns is the real node's answer. `http_requests` and `calls` count what clients asked.
"""

from __future__ import annotations

import json
import socket
import threading
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import rlp

from ledger.core import stateproof
from ledger.core.typeddata import keccak256

LIES = (
    "wrong chain id",
    "false receipt",
    "moved receipt",
    "false root",
    "false value",
    "pruned proof",
    "false head",
    "false fields",
    "other block",
    "stale head",
    "false state",
    "false genesis",
    "false event",
    "false beacon",
    "moved event",
    "foreign event",
    "hidden events",
    "other answers",
    "missing answer",
    "wrong types",
)
"""Answers in good form that are not true."""
FAILURES = ("hang", "http 500", "garbage", "no batch", "truncated", "slow", "drop", "flood", "refuses", "redirect", "deep json")
"""Answers that are none."""


class FaultyNode:
    """The proxy. `fault` is one of LIES or FAILURES, or None; it may be changed at any time."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.fault: str | None = None
        self.has_tags = True
        """Whether the chain knows the block tags `safe` and `finalized`: proof-of-authority chains do not."""
        self.withheld_methods: set[str] = set()
        """Methods that the node does not have."""
        self.http_requests = 0
        self.calls: list[str] = []
        self._released = threading.Event()
        self._kept: dict[str, Any] = {}
        node = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                node._serve(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    def ask(self, method: str, *parameters: Any) -> Any:
        """The real node's answer."""
        body = [{"jsonrpc": "2.0", "id": 0, "method": method, "params": parameters}]
        return json.loads(self._forward(json.dumps(body).encode()))[0]["result"]

    def _forward(self, body: bytes) -> bytes:
        request = urllib.request.Request(self.upstream, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bytes(answer.read())

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        calls = json.loads(body)
        self.http_requests += 1
        self.calls += [call["method"] for call in calls]
        if self.fault in FAILURES:
            _FAIL[self.fault](self, handler, body)
            return
        answers = self._answers(calls)
        _send(handler, json.dumps(answers).encode())

    def _answers(self, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
        withheld = [call for call in calls if self.fault == "false receipt" and call["method"] == "eth_sendRawTransaction"]
        forwarded = [call for call in calls if call not in withheld]
        answers = json.loads(self._forward(json.dumps(forwarded).encode())) if forwarded else []
        by_number = {answer["id"]: answer for answer in answers}
        for call in withheld:
            raw = bytes.fromhex(call["params"][0][2:])
            by_number[call["id"]] = {"jsonrpc": "2.0", "id": call["id"], "result": "0x" + keccak256(raw).hex()}
        if self.fault in LIES:
            for call in calls:
                answer = by_number[call["id"]]
                if "result" in answer:
                    answer["result"] = _lie(self, self.fault, call["method"], call["params"], answer["result"])
        for call in calls:
            tagged = call["method"] == "eth_getBlockByNumber" and call["params"][0] in ("safe", "finalized")
            if call["method"] in self.withheld_methods or (tagged and not self.has_tags):
                refusal = {"code": -32601, "message": "the method or tag does not exist"}
                by_number[call["id"]] = {"jsonrpc": "2.0", "id": call["id"], "error": refusal}
        ordered = [by_number[call["id"]] for call in calls]
        if self.fault == "missing answer":
            ordered.pop()
        if self.fault == "other answers":
            for answer in ordered:
                answer["id"] += 1
        return ordered


def _lie(node: FaultyNode, fault: str, method: str, parameters: list[Any], truth: Any) -> Any:
    """What the node says instead of the truth."""
    match fault, method:
        case "wrong chain id", "eth_chainId":
            return "0x1"
        case "false receipt", "eth_getTransactionReceipt":
            block = node.ask("eth_getBlockByNumber", "latest", False)
            return {
                "transactionHash": parameters[0],
                "blockHash": block["hash"],
                "blockNumber": block["number"],
                "gasUsed": "0x5208",
                "effectiveGasPrice": "0x1",
                "status": "0x1",
                "contractAddress": "0x" + "11" * 20,
            }
        case "moved receipt", "eth_getTransactionReceipt":
            return truth and truth | {"blockHash": "0x" + "33" * 32}
        case "false root", "eth_getProof":
            return truth | {"accountProof": [_flip(one, -1) for one in truth["accountProof"]]}
        case "false value", "eth_getProof":
            entries = [
                entry | {"value": "0x1", "proof": [*entry["proof"][:-1], *(_flip(one, -1) for one in entry["proof"][-1:])]}
                for entry in truth["storageProof"]
            ]
            return truth | {"storageProof": entries}
        case "pruned proof", "eth_getProof":
            return truth | {"accountProof": truth["accountProof"][:1], "storageProof": []}
        case "false head", "eth_getBlockByNumber":
            return _other_block(truth, number=hex(int(truth["number"], 16) + 50)) if parameters[0] == "latest" else truth
        case "false fields", "eth_getBlockByNumber":
            return truth and truth | {"timestamp": "0x1"}
        case "other block", "eth_getBlockByNumber":
            return node.ask(method, "0x1", False) if parameters[0].startswith("0x") and parameters[0] != "0x0" else truth
        case "stale head", "eth_getBlockByNumber":
            return node.ask(method, "0x0", False) if parameters[0] in ("latest", "safe", "finalized") else truth
        case "false state", "eth_getBlockByNumber":
            return truth and _other_block(truth, stateRoot="0x" + "77" * 32)
        case "false genesis", "eth_getBlockByNumber":
            return _other_block(truth, timestamp="0x1") if truth["number"] == "0x0" else truth
        case "false event", "eth_getLogs":
            return [entry | {"data": entry["data"][:66] + "22" * 32 + entry["data"][130:]} for entry in truth]
        case "false beacon", "eth_getLogs":
            return [entry | {"data": entry["data"][:-80] + "44" * 32 + entry["data"][-16:]} for entry in truth]
        case "moved event", "eth_getLogs":
            return [entry | {"blockHash": "0x" + "33" * 32} for entry in truth]
        case "foreign event", "eth_getLogs":
            return [entry | {"address": "0x" + "55" * 20} for entry in truth]
        case "hidden events", "eth_getLogs":
            return []
        case "wrong types", _:
            return {"unexpected": [None, True, -1]}
        case _:
            return truth


def _flip(node: str, position: int) -> str:
    """Trie node with one bit changed in the byte at `position`."""
    octets = bytearray.fromhex(node[2:])
    octets[position] ^= 1
    return "0x" + octets.hex()


def _other_block(block: dict[str, Any], **changes: str) -> dict[str, Any]:
    """A block with other fields, whose hash is right for them."""
    names = {"number": 8, "timestamp": 11, "stateRoot": 3}
    fields = rlp.decode(stateproof.header_rlp(block))
    for name, value in changes.items():
        number = int(value, 16)
        fields[names[name]] = bytes.fromhex(value[2:]) if name == "stateRoot" else number.to_bytes(8, "big").lstrip(b"\0")
    return block | changes | {"hash": "0x" + keccak256(rlp.encode(fields)).hex()}


def _send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, length: int | None = None) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


def _hang(node: FaultyNode, handler: BaseHTTPRequestHandler, body: bytes) -> None:
    node._released.wait(60)
    handler.close_connection = True


def _truncated(node: FaultyNode, handler: BaseHTTPRequestHandler, body: bytes) -> None:
    whole = node._forward(body)
    _send(handler, whole[: len(whole) // 2], length=len(whole))
    handler.close_connection = True


def _slow(node: FaultyNode, handler: BaseHTTPRequestHandler, body: bytes) -> None:
    whole = node._forward(body)
    _send(handler, b"", length=len(whole))
    try:
        for octet in whole:
            handler.wfile.write(bytes([octet]))
            handler.wfile.flush()
            if node._released.wait(0.05):
                break
    except OSError:
        handler.close_connection = True


def _drop(node: FaultyNode, handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def _flood(node: FaultyNode, handler: BaseHTTPRequestHandler, body: bytes) -> None:
    chunk = b" " * (1 << 20)
    _send(handler, b"", length=1 << 40)
    try:
        while not node._released.is_set():
            handler.wfile.write(chunk)
    except OSError:
        handler.close_connection = True


def _refuses(node: FaultyNode, handler: BaseHTTPRequestHandler, body: bytes) -> None:
    refusal = {"jsonrpc": "2.0", "id": None, "error": {"code": -32005, "message": "too many requests"}}
    _send(handler, json.dumps(refusal).encode())


def _redirect(node: FaultyNode, handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.send_response(307)
    handler.send_header("Location", node.upstream)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


_FAIL: dict[str, Callable[[FaultyNode, BaseHTTPRequestHandler, bytes], None]] = {
    "hang": _hang,
    "http 500": lambda node, handler, body: _send(handler, node._forward(body), 500),
    "garbage": lambda node, handler, body: _send(handler, b"<html>welcome to the hotel's wifi</html>"),
    "no batch": lambda node, handler, body: _send(handler, b'{"jsonrpc":"2.0","id":0,"result":"0x1"}'),
    "truncated": _truncated,
    "slow": _slow,
    "drop": _drop,
    "flood": _flood,
    "refuses": _refuses,
    "redirect": _redirect,
    "deep json": lambda node, handler, body: _send(handler, b"[" * 200_000),
}
