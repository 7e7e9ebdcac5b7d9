"""Makes the vectors of manifests: tests/vectors/manifests/manifests.json. Deterministic.

A case has the file, as `manifest` (text) or, where it is no text, `manifest_hex`, and what to `expect`: `content`, `kind` and
`count` that a ManifestRecord has for it, or `manifest` for a file that is refused. `line` is the line that is wrong.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ledger.core.strict import to_b64

Case = dict[str, Any]
Members = dict[str, Any]


def word(text: str, size: int = 32) -> str:
    return to_b64(hashlib.sha256(text.encode()).digest()[:size])


KEY = word("key")
HEADER: Members = {
    "format": "scanseal-manifest-1",
    "kind": "transmittal",
    "trial": "ABC-301",
    "site": "Hôpital A",
    "nonce": word("nonce", 16),
    "find_key": word("find key"),
}
VISIT = HEADER | {"kind": "visit", "subject": "S-01", "visit": "V1"}
ACCOUNT: Members = {"key": KEY, "first": 0, "last": 9, "others": [3, 4, 9]}


def image(number: int, **more: Any) -> Members:
    """An image's entry."""
    return {
        "record": word(f"record {number}"),
        "find": word(f"tokens {number}", 16),
        "subject": "S-01",
        "visit": "V1",
        "status": "sent",
        "origin": {"key": KEY, "counter": number},
    } | more


def none(**more: Any) -> Members:
    return {"subject": "S-02", "visit": "V1", "status": "none"} | more


def without(members: Members, name: str) -> Members:
    return {key: value for key, value in members.items() if key != name}


def line(members: Members | str) -> bytes:
    text = members if isinstance(members, str) else json.dumps(members, ensure_ascii=False, separators=(",", ":"))
    return text.encode()


def root(lines: list[bytes]) -> bytes:
    """The MTH of RFC 9162 §2.1.1, as it is defined."""
    if len(lines) == 1:
        return hashlib.sha256(b"\0" + lines[0]).digest()
    half = 1
    while half * 2 < len(lines):
        half *= 2
    return hashlib.sha256(b"\1" + root(lines[:half]) + root(lines[half:])).digest()


def vectors() -> dict[str, list[Case]]:
    return {"manifests": [*_right(), *_wrong()]}


def _right() -> list[Case]:
    cases: list[Case] = []

    def add(name: str, head: Members | str, *entries: Members | str) -> None:
        lines = [line(head), *map(line, entries)]
        kind = json.loads(lines[0])["kind"]
        expect = {"content": "0x" + root(lines).hex(), "kind": kind, "count": len(entries)}
        cases.append({"name": name, "expect": expect, "manifest": b"".join(one + b"\n" for one in lines).decode()})

    add("a visit", VISIT, image(0), image(1))
    add("a visit without images", VISIT, {"subject": "S-01", "visit": "V1", "status": "none", "reason": "patient did not come"})
    add("a transmittal of two visits", HEADER, image(0), image(1, visit="V2"), none())
    add("withheld, with a reason", HEADER, image(0, status="withheld", reason="wrong patient"))
    add("with the name of its evidence", HEADER, image(0, evidence="0000.seal.json"))
    add("a heartbeat of zero images", HEADER | {"kind": "heartbeat", "accounts": [{"key": KEY, "first": 7, "last": 7}]})
    add("a heartbeat of one", HEADER | {"kind": "heartbeat"}, image(7))
    add("accounts", HEADER | {"accounts": [ACCOUNT, ACCOUNT | {"first": 12, "last": 12, "others": []}]}, image(1))
    add("an account of a visit", HEADER | {"accounts": [ACCOUNT | {"subject": "S-01", "visit": "V1"}]}, image(1))
    add("an account to the last counter", HEADER | {"accounts": [ACCOUNT | {"last": (1 << 64) - 1}]}, image(1))
    add("members in another order, with spaces", json.dumps(dict(reversed(HEADER.items())), indent=None), json.dumps(image(0)))
    add("escapes", line(HEADER).decode().replace("ô", "\\u00f4"), image(0))
    add("text of 256 characters", HEADER, image(0, reason="é" * 256))
    for count in (3, 4, 5, 8, 33):
        add(f"{count} entries", HEADER, *(image(number) for number in range(count)))
    return cases


def _wrong() -> list[Case]:
    cases: list[Case] = []

    def add(name: str, number: int, manifest: bytes) -> None:
        try:
            held = {"manifest": manifest.decode()}
        except UnicodeDecodeError:
            held = {"manifest_hex": manifest.hex()}
        cases.append({"name": name, "expect": "manifest", "line": number, **held})

    def lines(name: str, number: int, *members: Members | str) -> None:
        add(name, number, b"".join(line(one) + b"\n" for one in members))

    whole = line(HEADER) + b"\n" + line(image(0)) + b"\n"
    add("nothing", 1, b"")
    add("a byte order mark", 1, b"\xef\xbb\xbf" + whole)
    add("UTF-16", 1, whole.decode().encode("utf-16"))
    add("Windows-1252", 1, whole.decode().encode("cp1252"))
    add("carriage returns", 1, whole.replace(b"\n", b"\r\n"))
    add("a carriage return within", 2, whole[:-2] + b"\r}\n")
    add("no line feed at the end", 2, whole[:-1])
    add("half a line", 2, whole[:-40])
    add("an empty line", 3, whole + b"\n")
    add("a line of spaces", 3, whole + b" \n")
    lines("two objects in a line", 2, HEADER, line(image(0)).decode() * 2)
    lines("a list", 2, HEADER, "[]")
    lines("no JSON", 2, HEADER, "record,find")
    lines("a member twice", 2, HEADER, line(image(0)).decode().replace('"visit"', '"visit":"V1","visit"'))
    lines("too deep", 2, HEADER, image(0) | {"origin": json.loads("[" * 12 + "]" * 12)})
    lines("deeper than a parser goes", 2, HEADER, '{"origin":' + "[" * 20_000 + "]" * 20_000 + "}")
    lines("half a surrogate pair", 2, HEADER, line(image(0)).decode().replace("S-01", "\\ud800"))
    for name in ("format", "kind", "trial", "site", "nonce", "find_key"):
        lines(f"a header without {name}", 1, without(HEADER, name), image(0))
    lines("another format", 1, HEADER | {"format": "scanseal-manifest-2"}, image(0))
    lines("another kind", 1, HEADER | {"kind": "study"}, image(0))
    lines("an unknown member of the header", 1, HEADER | {"count": 1}, image(0))
    lines("a nonce of 15 bytes", 1, HEADER | {"nonce": word("nonce", 15)}, image(0))
    lines("a find key with padding", 1, HEADER | {"find_key": HEADER["find_key"] + "="}, image(0))
    lines("an empty trial", 1, HEADER | {"trial": ""}, image(0))
    lines("a trial of 257 characters", 1, HEADER | {"trial": "x" * 257}, image(0))
    lines("a site with a line feed", 1, HEADER | {"site": "A\nB"}, image(0))
    lines("a site with a space at its end", 1, HEADER | {"site": "A "}, image(0))
    lines("a subject that is turned around", 2, HEADER, image(0, subject="S\u202e10"))
    lines("a visit without its subject", 1, without(VISIT, "subject"), image(0))
    lines("a visit without its visit", 1, without(VISIT, "visit"), image(0))
    lines("a transmittal with a subject", 1, HEADER | {"subject": "S-01"}, image(0))
    lines("a heartbeat with a subject and a visit", 1, VISIT | {"kind": "heartbeat"}, image(0))
    lines("accounts that are null", 1, HEADER | {"accounts": None}, image(0))
    lines("an account without a key", 1, HEADER | {"accounts": [without(ACCOUNT, "key")]}, image(0))
    lines("an account that ends before it begins", 1, HEADER | {"accounts": [{"key": KEY, "first": 3, "last": 2}]}, image(0))
    lines("others out of order", 1, HEADER | {"accounts": [ACCOUNT | {"others": [4, 3]}]}, image(0))
    lines("others twice", 1, HEADER | {"accounts": [ACCOUNT | {"others": [3, 3]}]}, image(0))
    lines("others outside", 1, HEADER | {"accounts": [ACCOUNT | {"others": [10]}]}, image(0))
    lines("others as text", 1, HEADER | {"accounts": [ACCOUNT | {"others": "34"}]}, image(0))
    lines("others that are true", 1, HEADER | {"accounts": [ACCOUNT | {"others": [True]}]}, image(0))
    lines("an account of a subject alone", 1, HEADER | {"accounts": [ACCOUNT | {"subject": "S-01"}]}, image(0))
    lines("a counter of 2^64", 1, HEADER | {"accounts": [ACCOUNT | {"last": 1 << 64}]}, image(0))
    lines("a negative counter", 2, HEADER, image(0, origin={"key": KEY, "counter": -1}))
    lines("a fraction", 2, HEADER, line(image(0)).decode().replace('"counter":0', '"counter":0.0'))
    for name in ("record", "find", "subject", "visit", "status", "origin"):
        lines(f"an entry without {name}", 2, HEADER, without(image(0), name))
    lines("an unknown member of an entry", 2, HEADER, image(0, path="1.dcm"))
    lines("an unknown member of an origin", 2, HEADER, image(0, origin={"key": KEY, "counter": 0, "record": word("record 0")}))
    lines("another status", 2, HEADER, image(0, status="lost"))
    lines("a record of 31 bytes", 2, HEADER, image(0, record=word("record 0", 31)))
    lines("a record in hex", 2, HEADER, image(0, record="0x" + "00" * 32))
    lines("a reason that is null", 2, HEADER, image(0, reason=None))
    lines("evidence in another folder", 2, HEADER, image(0, evidence="../0000.seal.json"))
    lines("evidence on another drive", 2, HEADER, image(0, evidence="C:0000.seal.json"))
    lines("evidence with a backslash", 2, HEADER, image(0, evidence="a\\0000.seal.json"))
    lines("evidence that is hidden", 2, HEADER, image(0, evidence=".seal.json"))
    lines("no images, with a record", 2, HEADER, none(record=word("record 0")))
    lines("no images, with evidence", 2, HEADER, none(evidence="0000.seal.json"))
    lines("an entry of another subject than the visit's", 2, VISIT, image(0, subject="S-02"))
    lines("an entry of another visit", 3, VISIT, image(0), image(1, visit="V2"))
    lines("a header again", 2, HEADER, HEADER, image(0))
    lines("a record twice", 4, HEADER, image(0), image(1), image(2, record=word("record 0")))
    lines("a visit without images twice", 4, HEADER, none(), image(0), none(reason="again"))
    lines("a visit with and without images", 3, HEADER, image(0), none(subject="S-01"))
    lines("a visit without and with images", 3, HEADER, none(subject="S-01"), image(0))
    lines("a transmittal of nothing", 1, HEADER)
    lines("a visit of nothing", 1, VISIT)
    return cases
