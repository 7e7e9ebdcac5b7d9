"""A log node, asked over HTTPS. docs/node.md. Nothing that it answers is believed here: `ledger.log.following` holds it against
signatures and proofs."""

from __future__ import annotations

import base64
import binascii
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from pydantic import ValidationError

from ledger.core import evidence, merkle
from ledger.core.contracts import Beacon
from ledger.core.errors import EvidenceInvalid, FixInput, NeedPermission, ScanSealError, TryLater
from ledger.core.merkle import TILE_WIDTH
from ledger.log.anchoring import AnchorRow
from ledger.log.following import KeyHeld
from ledger.log.submission import COUNTER_LIMIT, OutOfOrder

ANSWER_LIMIT: Final = 64 << 20
"""Bytes of an answer."""
SAID_LIMIT: Final = 300
"""Characters that a node's own words may take in a message."""
RETRIES: Final = 3
LONGEST_WAIT_S: Final = 10.0
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


class NodeClient:
    """One node. `token` lets it hand in; without one it can be read. `ca`: PEM file of whom to believe that the node is itself,
    the system's authorities if None; `shown`: PEM files of the certificate, and its key, by which a node knows its peers.
    `certificates`: key id -> X.509 certificate (DER) of keys that are handed in."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        ca: str | None = None,
        *,
        shown: tuple[str, str] | None = None,
        certificates: Mapping[bytes, bytes] | None = None,
        timeout_s: float = 20.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raises FixInput where the URL is none, or would send the token in the clear to another machine."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
            raise FixInput("a node's URL is https://HOST[:PORT][/PATH]")
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise FixInput("a node on another machine is asked over https://")
        self.name = parts.hostname if parts.port is None else f"{parts.hostname}:{parts.port}"
        self._certificates, self._sleep = certificates or {}, sleep
        headers = {"User-Agent": "scanseal"} | ({} if token is None else {"Authorization": f"Bearer {token}"})
        self._http = httpx.Client(
            base_url=url.rstrip("/") + "/v1/",
            headers=headers,
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 10.0)),
            verify=_tls(ca, shown),
            follow_redirects=False,
        )

    def close(self) -> None:
        self._http.close()

    # ---- handing in ----

    def submit(self, entries: Sequence[bytes]) -> None:
        """`ledger.log.following.Node`. The key's certificate goes along: it is small."""
        keys = dict.fromkeys(entry[96:128] for entry in entries)
        ders = [self._certificates[key] for key in keys if key in self._certificates]
        body = {"records": [_text(entry) for entry in entries], "certificates": [_text(der) for der in ders]}
        places = _json(self._ask("POST", "records", json.dumps(body).encode()))
        if len(_list(places, "records")) != len(entries):
            raise self._nonsense()

    def deposit(self, token: bytes, body: bytes) -> None:
        """Leaves encrypted evidence under a token."""
        self._ask("PUT", f"evidence/{token.hex()}", body)

    def withdraw(self, token: bytes) -> None:
        """Takes this site's deposit back; there may be none."""
        with suppress(NotThere):
            self._ask("DELETE", f"evidence/{token.hex()}")

    def try_token(self) -> None:
        """Raises NeedPermission where the node does not know this site's token."""
        with suppress(FixInput):  # it looks at the token first, and then finds that nothing was handed in
            self._ask("POST", "records", b'{"records":[]}')

    # ---- reading ----

    def checkpoint(self) -> str:
        try:
            return self._ask("GET", "checkpoint").decode()
        except UnicodeDecodeError as error:
            raise self._nonsense() from error

    def entries(self, start: int, stop: int) -> Iterator[bytes]:
        """Entries start .. stop-1 of the log."""
        at = start
        while at < stop:
            bundle, first = divmod(at, TILE_WIDTH)
            end = min(TILE_WIDTH, stop - bundle * TILE_WIDTH)
            held = self._bundle(bundle, end)
            if len(held) < end:
                raise self._nonsense()
            yield from held[first:end]
            at = bundle * TILE_WIDTH + end

    def _bundle(self, number: int, width: int) -> list[bytes]:
        try:
            return merkle.unpack_entries(self._ask("GET", merkle.entries_path(number, width)))
        except EvidenceInvalid as error:
            raise self._nonsense() from error

    def anchors(self, after: int) -> tuple[Sequence[AnchorRow], bool]:
        """`ledger.log.following.Node`."""
        found = _json(self._ask("GET", f"anchors?after={after}"))
        try:
            return [_anchor(one) for one in _list(found, "anchors")], bool(found["more"])
        except (KeyError, TypeError, ValueError, ValidationError, ScanSealError) as error:
            raise self._nonsense() from error

    def newest_header(self) -> bytes:
        """A recent block's header, RLP."""
        return _octets(_json(self._ask("GET", "headers/newest")).get("header"))

    def deposited(self, token: bytes) -> list[bytes]:
        """What sites left under a token."""
        try:
            answer = self._ask("GET", f"evidence/{token.hex()}")
        except NotThere:
            return []
        return [_octets(one) for one in _list(_json(answer), "evidence")]

    # ---- asking ----

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """The answer. What may be asked again at once (no connection, too busy) is, a few times."""
        for attempt in range(RETRIES + 1):
            try:
                status, headers, answer = self._once(method, path, body)
            except httpx.TransportError as error:
                if attempt < RETRIES and isinstance(error, httpx.ConnectError | httpx.RemoteProtocolError | httpx.ReadError):
                    self._sleep(0.2 * 2**attempt)
                    continue
                raise TryLater(f"the log node {self.name} is out of reach ({type(error).__name__})") from error
            if status in (429, 503) and attempt < RETRIES:
                self._sleep(_wait(headers, attempt))
                continue
            if 200 <= status < 300:
                return answer
            raise self._refused(status, answer)
        raise self._nonsense()

    def _once(self, method: str, path: str, body: bytes | None) -> tuple[int, Mapping[str, str], bytes]:
        kind = {} if body is None else {"Content-Type": "application/json" if method == "POST" else "application/octet-stream"}
        with self._http.stream(method, path, content=body, headers=kind) as response:
            answer = bytearray()
            for part in response.iter_bytes():
                answer += part
                if len(answer) > ANSWER_LIMIT:
                    raise TryLater(f"the log node {self.name} answers without end")
            return response.status_code, response.headers, bytes(answer)

    def _refused(self, status: int, answer: bytes) -> ScanSealError:
        """What a problem (RFC 9457) means for whoever asked."""
        try:
            told = json.loads(answer)
            word, detail = str(told["type"]).rpartition(":")[2], _printable(str(told["detail"]))
        except (ValueError, KeyError, TypeError):
            told, word, detail = {}, "", ""
        said = f"the log node {self.name} says {status}" + (f": {detail}" if detail else "")
        if word in ("key-forked", "out-of-order"):
            try:
                key = bytes.fromhex(str(told["key"]).removeprefix("0x"))
                if word == "key-forked":
                    return KeyHeld(key, said)
                return OutOfOrder(key, _counter(told["counter"]), _counter(told["next_counter"]))
            except (KeyError, ValueError):
                return self._nonsense()
        if status == 401:
            return NeedPermission(f"the log node {self.name} does not know this site's token: ask its operator for another")
        if status == 403:
            return NeedPermission(said)
        if status == 404:
            return NotThere(said)
        if status in (409, 413, 422):
            return FixInput(said)
        return TryLater(said)

    def _nonsense(self) -> TryLater:
        return TryLater(f"{self.name} does not answer as a log node does: is the URL right?")


class NotThere(TryLater):
    """The node has nothing under that path."""


def _tls(ca: str | None, shown: tuple[str, str] | None) -> ssl.SSLContext:
    """Raises FixInput where the files cannot be used."""
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise FixInput(f"{ca}: no certificates of an authority in PEM") from error
    if shown is not None:
        try:
            context.load_cert_chain(*shown, password=lambda: "")
        except (OSError, ValueError) as error:
            raise FixInput(f"{shown[0]}, {shown[1]}: no certificate with its key, in PEM and not encrypted") from error
    return context


def _counter(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value < COUNTER_LIMIT:
        raise ValueError("not a counter")
    return value


def _anchor(one: Mapping[str, Any]) -> AnchorRow:
    return AnchorRow(
        new_size=int(one["new_size"]),
        old_size=int(one["old_size"]),
        checkpoint=str(one["checkpoint"]),
        beacons=tuple(Beacon(int(beacon["number"]), _hash(beacon["hash"])) for beacon in one["beacons"]),
        block_number=int(one["block_number"]),
        block_hash=_hash(one["block_hash"]),
        block_time=int(one["block_time"]),
        gas_used=None if one["gas_used"] is None else int(one["gas_used"]),
        state="final",
        proof=evidence.State.model_validate_json(json.dumps(one["proof"])),
    )


def _hash(text: str) -> bytes:
    found = bytes.fromhex(text.removeprefix("0x"))
    if len(found) != 32:
        raise ValueError("not a hash")
    return found


def _json(answer: bytes) -> dict[str, Any]:
    try:
        found = json.loads(answer)
    except ValueError as error:
        raise TryLater("a log node answers what is no JSON: is the URL right?") from error
    if not isinstance(found, dict):
        raise TryLater("a log node answers JSON that is no object: is the URL right?")
    return found


def _list(found: Mapping[str, Any], name: str) -> list[Any]:
    value = found.get(name)
    if not isinstance(value, list):
        raise TryLater(f"a log node answers without {name}: is the URL right?")
    return value


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _octets(text: object) -> bytes:
    try:
        return base64.b64decode(text if isinstance(text, str) else "!", validate=True)
    except (binascii.Error, ValueError) as error:
        raise TryLater("a log node answers what is no base64: is the URL right?") from error


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())[:SAID_LIMIT]


def _wait(headers: Mapping[str, str], attempt: int) -> float:
    try:
        asked = float(headers.get("Retry-After", ""))
    except ValueError:
        asked = 0.5 * 2**attempt
    return min(max(asked, 0.1), LONGEST_WAIT_S)
