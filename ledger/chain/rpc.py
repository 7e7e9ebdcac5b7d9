"""One Ethereum JSON-RPC endpoint over HTTP: whole batches, deadlines, size limits, and answers read as a stranger's.

A batch is one HTTP request, so what a caller wants to know of a thousand images costs one round trip, not a thousand.
`quantity` and `octets` read a node's values strictly. Messages name the host only, since URLs of RPC providers carry keys in
their user part, path or query.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from pydantic_core import from_json

from ledger.core.errors import FixInput, LedgerDisagrees, LedgerUnavailable

ANSWER_LIMIT = 64 << 20
"""Bytes of one HTTP answer: more is not read."""
BATCH_LIMIT = 100
"""Calls in one HTTP request; nodes limit this (Erigon at 100, Geth and Besu near 1,000)."""


@dataclass(frozen=True)
class Call:
    """A JSON-RPC call; `parameters` as JSON values."""

    method: str
    parameters: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Refusal:
    """What a node says instead of a result; `reverted` is the revert data of a contract, if it names any."""

    code: int
    message: str
    reverted: bytes | None = None


class Endpoint:
    """A node's JSON-RPC over HTTP or HTTPS. Thread-safe; keeps its connections.

    Raises LedgerUnavailable when the node is silent, slow, down or talks no JSON-RPC, and LedgerDisagrees when its answers do
    not belong to the questions. Proxies are taken from the environment, as everywhere in Python.
    """

    def __init__(
        self, url: str, *, timeout_s: float = 20.0, batch_limit: int = BATCH_LIMIT, answer_limit: int = ANSWER_LIMIT
    ) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError as error:
            raise FixInput("the RPC URL's port is not a number") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise FixInput("an RPC URL looks like http://127.0.0.1:8545 or https://host/path")
        self.name = parts.hostname if port is None else f"{parts.hostname}:{port}"
        """The host, for messages: never the credentials in the URL."""
        self._url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        self._timeout_s, self._batch_limit, self._answer_limit = timeout_s, batch_limit, answer_limit
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if parts.username is not None:
            self._headers |= urllib3.make_headers(basic_auth=f"{parts.username}:{parts.password or ''}")
        self._pool = _pool(parts.scheme, parts.hostname)

    def call(self, method: str, *parameters: Any) -> Any:
        """One result. Raises LedgerUnavailable with the node's words where it refuses."""
        return self.results([Call(method, parameters)])[0]

    def results(self, calls: Sequence[Call]) -> list[Any]:
        """The results of `calls`, in order. Raises LedgerUnavailable where the node refuses one of them."""
        answers = self.batch(calls)
        for call, answer in zip(calls, answers, strict=True):
            if isinstance(answer, Refusal):
                raise LedgerUnavailable(f"{self.name} refuses {call.method}: {answer.message}")
        return answers

    def batch(self, calls: Sequence[Call]) -> list[Any]:
        """For each call, in order, its result or a Refusal; one HTTP request for every `batch_limit` calls."""
        answers: list[Any] = []
        for start in range(0, len(calls), self._batch_limit):
            answers += self._request(calls[start : start + self._batch_limit])
        return answers

    def _request(self, calls: Sequence[Call]) -> list[Any]:
        body = json.dumps(
            [
                {"jsonrpc": "2.0", "id": number, "method": call.method, "params": call.parameters}
                for number, call in enumerate(calls)
            ]
        ).encode()
        try:
            # Not json.loads: a library that raises the recursion limit (py_ecc) lets deep nesting crash the interpreter in it.
            answer = from_json(self._post(body), allow_inf_nan=False)
        except ValueError as error:
            raise LedgerUnavailable(f"{self.name} does not answer in JSON: is it an Ethereum node?") from error
        if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
            refusal = self._refusal(answer["error"])
            raise LedgerUnavailable(f"{self.name} refuses a batch of {len(calls)} calls: {refusal.message}")
        if not isinstance(answer, list) or not all(isinstance(part, dict) for part in answer):
            raise LedgerUnavailable(f"{self.name} does not answer a JSON-RPC batch: is it an Ethereum node?")
        by_number = {part.get("id"): part for part in answer if isinstance(part.get("id"), int)}
        if len(answer) != len(calls) or sorted(by_number) != list(range(len(calls))):
            raise LedgerDisagrees(f"{self.name} answers {len(answer)} calls, and not the {len(calls)} that it was asked")
        return [self._outcome(by_number[number]) for number in range(len(calls))]

    def _outcome(self, part: Mapping[str, Any]) -> Any:
        if isinstance(part.get("error"), dict):
            return self._refusal(part["error"])
        if "result" not in part:
            raise LedgerDisagrees(f"{self.name} answers a call with neither result nor error")
        return part["result"]

    def _refusal(self, error: Mapping[str, Any]) -> Refusal:
        code, message = error.get("code"), str(error.get("message", "no reason given"))
        visible = "".join(character if character.isprintable() else " " for character in message[:300])
        reverted = error.get("data")
        if isinstance(reverted, dict):
            reverted = reverted.get("result", reverted.get("data"))
        return Refusal(
            code if isinstance(code, int) else 0,
            visible.replace(self._url, self.name),
            _reverted(reverted) if isinstance(reverted, str) else None,
        )

    def _post(self, body: bytes) -> bytes:
        """The answer's bytes. The deadline is for the whole answer: a node that drips bytes does not hold the caller."""
        deadline = time.monotonic() + self._timeout_s
        try:
            response = self._pool.request(
                "POST",
                self._url,
                body=body,
                headers=self._headers,
                timeout=urllib3.Timeout(connect=min(self._timeout_s, 10.0), read=self._timeout_s),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            try:
                return self._read(response, deadline)
            except BaseException:
                response.close()
                raise
            finally:
                response.release_conn()
        except urllib3.exceptions.NewConnectionError as error:  # is also a TimeoutError
            raise LedgerUnavailable(f"nothing answers at {self.name}: is the node running?") from error
        except urllib3.exceptions.TimeoutError as error:
            raise LedgerUnavailable(f"{self.name} does not answer within {self._timeout_s:g} s") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise LedgerUnavailable(f"the connection to {self.name} broke: try again") from error

    def _read(self, response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
        if response.status != 200:
            raise LedgerUnavailable(f"{self.name} answers with HTTP status {response.status}")
        chunks: list[bytes] = []
        size = 0
        while chunk := response.read1(1 << 16):
            chunks.append(chunk)
            size += len(chunk)
            if size > self._answer_limit:
                raise LedgerUnavailable(f"{self.name} answers with more than {self._answer_limit} bytes")
            if time.monotonic() > deadline:
                raise LedgerUnavailable(f"{self.name} does not finish its answer within {self._timeout_s:g} s")
        return b"".join(chunks)


def quantity(value: object, what: str) -> int:
    """A JSON-RPC quantity (`0x` and hex digits) below 2^256. Raises LedgerDisagrees."""
    if isinstance(value, str) and value.startswith("0x") and 2 < len(value) <= 66:
        try:
            return int(value[2:], 16)
        except ValueError:
            pass
    raise LedgerDisagrees(f"the node gives no number for the {what}")


def octets(value: object, what: str, size: int | None = None) -> bytes:
    """JSON-RPC data (`0x` and pairs of hex digits), of `size` bytes if given. Raises LedgerDisagrees."""
    if isinstance(value, str) and value.startswith("0x"):
        try:
            found = bytes.fromhex(value[2:])
        except ValueError:
            found = None
        if found is not None and size in (None, len(found)):
            return found
    raise LedgerDisagrees(f"the node gives no {'bytes' if size is None else f'{size} bytes'} for the {what}")


def members(value: object, what: str) -> Mapping[str, Any]:
    """A JSON object. Raises LedgerDisagrees."""
    if not isinstance(value, dict):
        raise LedgerDisagrees(f"the node gives no {what}")
    return value


def hexadecimal(value: int | bytes) -> str:
    """A quantity or data as JSON-RPC wants it."""
    return hex(value) if isinstance(value, int) else "0x" + value.hex()


def _reverted(text: str) -> bytes | None:
    """Revert data out of an error's `data`: some nodes write `Reverted 0x...`."""
    _, found, digits = text.partition("0x")
    try:
        return bytes.fromhex(digits) if found else None
    except ValueError:
        return None


def _pool(scheme: str, host: str) -> urllib3.PoolManager:
    proxy = None if proxy_bypass(host) else getproxies().get(scheme)
    return urllib3.ProxyManager(proxy, maxsize=4) if proxy else urllib3.PoolManager(maxsize=4)
