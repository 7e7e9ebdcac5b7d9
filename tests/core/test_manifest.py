"""Manifests against their vectors, the tree against its definition, and lists of any length in the memory of a line."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.core import manifest, merkle
from ledger.core.errors import EvidenceInvalid, Stop
from ledger.core.manifest import Account, Digest, Entry, Header, Reader, RootBuilder, distinct
from ledger.core.records import ManifestRecord
from tests.audit.making import CT, entry, header, nothing
from tests.vectors import make_manifests

FILE = Path(make_manifests.__file__).parent / "manifests" / "manifests.json"
CASES = json.loads(FILE.read_text(encoding="utf-8"))


def read(data: bytes) -> tuple[Header, list[Entry], Digest]:
    reader = Reader(io.BytesIO(data))
    entries = list(distinct(reader))
    return reader.header, entries, reader.digest


def held(case: dict[str, Any]) -> bytes:
    return bytes.fromhex(case["manifest_hex"]) if "manifest_hex" in case else case["manifest"].encode()


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_vector_gives_what_it_expects(case: dict[str, Any]) -> None:
    if case["expect"] == "manifest":
        with pytest.raises(EvidenceInvalid) as caught:
            read(held(case))
        assert caught.value.step == "manifest"
        assert f"line {case['line']}" in str(caught.value) or case["line"] == 1
        return
    head, entries, digest = read(held(case))
    expected = case["expect"]
    assert ("0x" + digest.content.hex(), digest.kind, digest.count) == (
        expected["content"],
        expected["kind"],
        expected["count"],
    )
    assert (head.kind, len(entries)) == (expected["kind"], expected["count"])


def test_the_file_is_what_the_generator_makes() -> None:
    assert make_manifests.vectors()["manifests"] == CASES


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: b"\xef\xbb\xbf" + data, "line 1 starts with a byte order mark"),
        (lambda data: data.replace(b"\n", b"\r\n"), "line 1 has a carriage return"),
        (lambda data: data[:-1], "line 3 does not end with a line feed: half written"),
        (lambda data: data.replace(b"V1", b"V\xe9", 1), "line 2 is not UTF-8 at byte "),
        (lambda data: data + b"\n", "line 4 is empty"),
        (lambda data: data.replace(b'"status":"sent"', b'"status":"sent","status":"sent"', 1), "line 2: it is not strict JSON"),
        (lambda data: data.replace(b'"subject":"S-01",', b"", 1), "line 2, subject: Field required"),
        (lambda data: data.replace(b'"visit":', b'"Visit":', 1), "line 2, visit: Field required"),
        (lambda data: data.replace(b'"status"', b'"size":1,"status"', 1), "line 2, size: Extra inputs are not permitted"),
        (lambda data: data.replace(b'"counter":0', b'"counter":true', 1), "line 2, origin.counter: "),
    ],
    ids=range(10),
)
def test_what_happened_to_a_file_is_said(damage: Any, reason: str) -> None:
    file = io.BytesIO()
    manifest.write(header(), [entry("a"), entry("b")], file)
    with pytest.raises(EvidenceInvalid, match=reason) as caught:
        read(damage(file.getvalue()))
    assert "S-01" not in str(caught.value)


def test_what_is_listed_twice_is_named_with_both_lines() -> None:
    with pytest.raises(EvidenceInvalid, match="line 4: line 2 lists this record already"):
        list(distinct([entry("a"), entry("b"), entry("a")]))
    with pytest.raises(EvidenceInvalid, match="line 3: line 2 lists this visit without images already"):
        list(distinct([nothing(), nothing()]))
    with pytest.raises(EvidenceInvalid, match="line 3: line 2 says otherwise of this visit"):
        list(distinct([nothing(), entry("a")]))


def test_nothing_is_written_that_would_not_be_read() -> None:
    for head, entries in [
        (header(), []),
        (header("visit"), [entry("a")]),
        (header("visit", subject="S-01", visit="V1"), [entry("a", visit="V2")]),
        (header(accounts=[Account(key=CT, first=2, last=1)]), [entry("a")]),
        (header(), [entry("a"), entry("a")]),
        (header(), [entry("a"), nothing()]),
    ]:
        with pytest.raises(EvidenceInvalid):
            manifest.write(head, entries, io.BytesIO())


def test_half_a_list_has_no_digest() -> None:
    file = io.BytesIO()
    written = manifest.write(header(), [entry("a"), entry("b")], file)
    file.seek(0)
    reader = Reader(file)
    next(iter(reader))
    with pytest.raises(Stop, match="not read to its end"):
        _ = reader.digest
    assert list(reader)[-1] == entry("b")
    assert reader.digest == written


def test_a_record_is_of_one_list_only_and_the_difference_is_said() -> None:
    digest = manifest.write(header(), [entry("a")], io.BytesIO())
    record = ManifestRecord(digest.content, "manifest-1", bytes(32), 0, bytes(32), 0, 0, bytes(32), digest.kind, digest.count)
    digest.check(record)
    assert digest.is_of(record)
    for other, reason in [
        (replace(record, count=2), "1 entries where 2 were signed"),
        (replace(record, kind="visit"), "is a transmittal, and another kind was signed"),
        (replace(record, content=bytes(32)), "lines are not those that were signed"),
        (replace(record, profile="approval-1"), "profile is not manifest-1"),
    ]:
        with pytest.raises(EvidenceInvalid, match=reason):
            digest.check(other)


@given(st.lists(st.binary(max_size=40), max_size=70))
def test_leaves_that_come_one_by_one_have_the_root_of_all(leaves: list[bytes]) -> None:
    builder = RootBuilder()
    for leaf in leaves:
        builder.add(leaf)
    assert builder.root() == merkle.root_of([merkle.leaf_hash(leaf) for leaf in leaves])


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=256).filter(manifest.is_text)
counters = st.integers(0, (1 << 64) - 1)


@st.composite
def entries(draw: st.DrawFn) -> list[Entry]:
    records = draw(st.lists(st.integers(0, 99), unique=True, max_size=5))
    images = [
        entry(
            record,
            subject=draw(texts),
            visit="V1",
            status=draw(st.sampled_from(["sent", "withheld"])),
            origin=(CT, draw(counters)),
        )
        for record in records
    ]
    return [*images, *(nothing(subject, "V2") for subject in draw(st.lists(texts, unique=True, min_size=1, max_size=3)))]


@given(entries(), st.lists(st.tuples(counters, counters).map(sorted), max_size=3))
def test_what_is_written_is_read_again_and_written_alike(listed: list[Entry], spans: list[list[int]]) -> None:
    accounts = [Account(key=CT, first=first, last=last, others=tuple({first: 0, last: 0})) for first, last in spans]
    head = header(accounts=accounts)
    one, other = io.BytesIO(), io.BytesIO()
    digest = manifest.write(head, listed, one)
    found, again, read_digest = read(one.getvalue())
    assert (found, again, read_digest) == (head, listed, digest)
    assert manifest.write(found, again, other) == digest
    assert other.getvalue() == one.getvalue()


@given(st.binary(max_size=300))
def test_any_bytes_are_a_list_or_an_error(data: bytes) -> None:
    for prefix in (b"", make_manifests.line(make_manifests.HEADER) + b"\n"):
        with pytest.raises(EvidenceInvalid):
            read(prefix + data)


class Endless(io.RawIOBase):
    """A file of so many entries, made as it is read."""

    def __init__(self, count: int) -> None:
        self._lines = self._made(count)

    def _made(self, count: int) -> Iterator[bytes]:
        yield make_manifests.line(make_manifests.HEADER) + b"\n"
        for number in range(count):
            yield make_manifests.line(make_manifests.image(number)) + b"\n"

    def readline(self, size: int | None = -1) -> bytes:  # type: ignore[override]
        return next(self._lines, b"")


def test_a_list_of_any_length_takes_the_memory_of_a_line() -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        reader = Reader(Endless(count))  # type: ignore[arg-type]
        assert sum(1 for _ in reader) == reader.digest.count == count
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    # 6 MB of lines; the parser's cache of strings fills up to two, once.
    assert peak(20_000) < 2_500_000


def test_a_line_without_end_is_not_read_to_its_end() -> None:
    file = io.BytesIO(b'{"format":"' + b"x" * (8 << 20))
    with pytest.raises(EvidenceInvalid, match="longer than 1 MiB"):
        Reader(file)
    assert file.tell() <= (1 << 20) + 1
