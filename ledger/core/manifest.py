"""Manifests: signed closed lists of images, of a visit, a transmittal or a heartbeat. FORMAT.md §3.2.

A manifest is read and written line by line, so that one of any length takes the memory of a line.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from ledger.core import merkle
from ledger.core.errors import EvidenceInvalid, Stop
from ledger.core.records import ManifestRecord
from ledger.core.strict import from_b64, strict_json, to_b64

FORMAT: Final = "scanseal-manifest-1"
PROFILE: Final = "manifest-1"
LINE_LIMIT: Final = 1 << 20
"""Bytes of a line."""

Kind = Literal["visit", "transmittal", "heartbeat"]


TEXT_LIMIT: Final = 256


def is_text(value: object) -> bool:
    """Whether it is text as a manifest has it: 1 to 256 characters, none of Unicode's categories C and Z but the space, and
    none of those at its ends."""
    return isinstance(value, str) and 0 < len(value) <= TEXT_LIMIT and value.isprintable() and value == value.strip()


def _text(value: object) -> object:
    if not is_text(value):
        raise ValueError("1 to 256 printable characters belong here, no space at the ends")
    return value


def _file_name(value: object) -> object:
    # An auditor opens what it names: it must not lead out of the folder of the evidence.
    if isinstance(value, str) and (value.startswith(".") or any(one in value for one in "/\\:")):
        raise ValueError("the name of a file belongs here, without a folder")
    return value


def _sized(size: int) -> BeforeValidator:
    def decode(value: object) -> bytes:
        data = from_b64(value)
        if len(data) != size:
            raise ValueError(f"{len(data)} bytes where {size} belong")
        return data

    return BeforeValidator(decode)


_B64 = PlainSerializer(to_b64, return_type=str, when_used="json")
Text = Annotated[str, BeforeValidator(_text)]
FileName = Annotated[str, BeforeValidator(_file_name), BeforeValidator(_text)]
Word = Annotated[bytes, _sized(32), _B64]
Half = Annotated[bytes, _sized(16), _B64]
UInt64 = Annotated[int, Field(ge=0, lt=1 << 64)]


class _Line(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Account(_Line):
    """What a device key signed between two counters: every one is of an image listed somewhere in the trial, or in `others`."""

    key: Word
    first: UInt64
    last: UInt64
    others: Annotated[tuple[UInt64, ...], Field(strict=False)] = ()
    subject: Text | None = None
    visit: Text | None = None


class Header(_Line):
    """The first line. `find_key` makes the entries' look-up tokens; the nonce keeps a short list from being guessed."""

    format: Literal["scanseal-manifest-1"]
    kind: Kind
    trial: Text
    site: Text
    subject: Text | None = None
    visit: Text | None = None
    nonce: Half
    find_key: Word
    accounts: Annotated[tuple[Account, ...], Field(strict=False)] = ()


class Origin(_Line):
    """Which record an image began with: its key and counter."""

    key: Word
    counter: UInt64


class Entry(_Line):
    """One line after the header: an image (`sent` or `withheld`), or a visit without any (`none`)."""

    subject: Text
    visit: Text
    status: Literal["sent", "withheld", "none"]
    record: Word | None = None
    find: Half | None = None
    origin: Origin | None = None
    evidence: FileName | None = None
    reason: Text | None = None

    @property
    def tokens(self) -> tuple[bytes, bytes]:
        """The look-up tokens of PixelData and SOPInstanceUID under the header's find key; empty for a visit without images."""
        return (self.find[:8], self.find[8:]) if self.find else (b"", b"")


class RootBuilder:
    """The RFC 9162 root over leaves that come one by one, in the memory of a path."""

    def __init__(self) -> None:
        self._complete: list[tuple[int, bytes]] = []
        self.size = 0

    def add(self, data: bytes) -> None:
        height, node = 0, merkle.leaf_hash(data)
        while self._complete and self._complete[-1][0] == height:
            node = merkle.node_hash(self._complete.pop()[1], node)
            height += 1
        self._complete.append((height, node))
        self.size += 1

    def root(self) -> bytes:
        if not self._complete:
            return merkle.root_of(())
        nodes = [node for _, node in reversed(self._complete)]
        root = nodes[0]
        for node in nodes[1:]:
            root = merkle.node_hash(node, root)
        return root


@dataclass(frozen=True)
class Digest:
    """What a ManifestRecord says of a manifest: the root over its lines, its kind, its number of entries."""

    content: bytes
    kind: Kind
    count: int

    def is_of(self, record: ManifestRecord) -> bool:
        return (record.content, record.kind, record.count) == (self.content, self.kind, self.count)

    def check(self, record: ManifestRecord) -> None:
        """Raises EvidenceInvalid, saying what is not what was signed."""
        if record.profile != PROFILE:
            raise EvidenceInvalid(f"the record's profile is not {PROFILE}", "manifest")
        if record.count != self.count:
            raise EvidenceInvalid(f"the manifest has {self.count} entries where {record.count} were signed", "manifest")
        if record.kind != self.kind:
            raise EvidenceInvalid(f"the manifest is a {self.kind}, and another kind was signed", "manifest")
        if record.content != self.content:
            raise EvidenceInvalid("the manifest's lines are not those that were signed", "manifest")


class Reader:
    """Reads a manifest: `header` at once, then the entries by iterating once; `digest` is known after the last, and not before.

    Raises EvidenceInvalid naming the line. That nothing is listed twice is the caller's to hold, who keeps the entries:
    `distinct` does it in memory.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._root, self._entries, self._is_whole = file, RootBuilder(), 0, False
        line = self._line(1)
        if line is None:
            raise EvidenceInvalid("the manifest is empty", "manifest")
        self.header = _parsed(Header, line, 1)
        _check_header(self.header)

    def __iter__(self) -> Iterator[Entry]:
        while (line := self._line(self._entries + 2)) is not None:
            self._entries += 1
            entry = _parsed(Entry, line, self._entries + 1)
            _check_entry(entry, self.header, self._entries + 1)
            yield entry
        _check_end(self.header, self._entries)
        self._is_whole = True

    @property
    def digest(self) -> Digest:
        """Raises Stop before the last entry was read: half a list has no digest."""
        if not self._is_whole:
            raise Stop("the manifest was not read to its end")
        return Digest(self._root.root(), self.header.kind, self._entries)

    def _line(self, number: int) -> bytes | None:
        line = self._file.readline(LINE_LIMIT + 1)
        if not line:
            return None
        if not line.endswith(b"\n"):
            what = "is longer than 1 MiB" if len(line) > LINE_LIMIT else "does not end with a line feed: half written?"
            raise EvidenceInvalid(f"the manifest's line {number} {what}", "manifest")
        self._root.add(line[:-1])
        _check_bytes(line[:-1], number)
        return line[:-1]


def write(header: Header, entries: Iterable[Entry], file: BinaryIO) -> Digest:
    """Writes a manifest, the same bytes for the same list. Raises EvidenceInvalid for one that `Reader` would refuse."""
    _check_header(header)
    root = RootBuilder()
    count = 0
    for line in _lines(header, entries):
        root.add(line)
        file.write(line + b"\n")
        count += 1
    return Digest(root.root(), header.kind, count - 1)


def _lines(header: Header, entries: Iterable[Entry]) -> Iterator[bytes]:
    yield _dumped(header)
    count = 0
    for count, entry in enumerate(distinct(entries), 1):
        _check_entry(entry, header, count + 1)
        yield _dumped(entry)
    _check_end(header, count)


def distinct(entries: Iterable[Entry]) -> Iterator[Entry]:
    """The entries of one manifest (a Reader's), checked for what is listed twice: a record, or a visit without images that is
    listed again or with images. Raises EvidenceInvalid with both lines. Keeps some 100 bytes of memory an entry."""
    lines: dict[bytes | tuple[str, str], int] = {}
    pictured: dict[tuple[str, str], int] = {}
    for number, entry in enumerate(entries, 2):
        visit = (entry.subject, entry.visit)
        before = lines.setdefault(visit if entry.record is None else entry.record, number)
        if before != number:
            what = "this visit without images" if entry.record is None else "this record"
            raise EvidenceInvalid(f"the manifest's line {number}: line {before} lists {what} already", "manifest")
        if entry.record is not None:
            pictured.setdefault(visit, number)
        image, none = pictured.get(visit), lines.get(visit)
        if image is not None and none is not None:
            raise EvidenceInvalid(
                f"the manifest's line {max(image, none)}: line {min(image, none)} says otherwise of this visit: "
                "it has images, or it has none",
                "manifest",
            )
        yield entry


def _dumped(line: _Line) -> bytes:
    value = line.model_dump(mode="json", exclude_none=True)
    if value.get("accounts") == []:
        del value["accounts"]
    for account in value.get("accounts", ()):
        if not account["others"]:
            del account["others"]
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _check_bytes(line: bytes, number: int) -> None:
    """What editors and transfers do to a file, told apart from what is wrong with its content."""
    what = None
    if number == 1 and line.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        what = "starts with a byte order mark: a manifest is UTF-8 without one, byte for byte as it was signed"
    elif b"\r" in line:
        what = "has a carriage return: lines end with a line feed alone; was the file sent as text?"
    elif not line:
        what = "is empty"
    else:
        try:
            line.decode()
        except UnicodeDecodeError as error:
            what = f"is not UTF-8 at byte {error.start + 1}"
    if what is not None:
        raise EvidenceInvalid(f"the manifest's line {number} {what}", "manifest")


def _has_null(value: object) -> bool:
    if isinstance(value, dict | list):
        return any(_has_null(one) for one in (value.values() if isinstance(value, dict) else value))
    return value is None


def _parsed(kind: Any, line: bytes, number: int) -> Any:
    try:
        value = strict_json(line)
        if _has_null(value):
            raise EvidenceInvalid("null is no value of any member: it is left out", "manifest")
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise EvidenceInvalid(f"the manifest's line {number}, {place or 'whole'}: {first['msg']}", "manifest") from error
    except EvidenceInvalid as error:
        raise EvidenceInvalid(f"the manifest's line {number}: {error}", "manifest") from error


def _check_header(header: Header) -> None:
    named = {header.subject is not None, header.visit is not None}
    if named != {header.kind == "visit"}:
        raise EvidenceInvalid("the manifest's line 1: a visit, and nothing else, has a subject and a visit", "manifest")
    for account in header.accounts:
        others = account.others
        ascends = all(one < other for one, other in itertools.pairwise(others))
        if (
            account.first > account.last
            or not ascends
            or (others and not account.first <= others[0] <= others[-1] <= account.last)
        ):
            raise EvidenceInvalid("the manifest's line 1: an account's counters are out of order", "manifest")
        if (account.subject is None) != (account.visit is None):
            raise EvidenceInvalid("the manifest's line 1: an account names a subject and a visit, or neither", "manifest")


def _check_entry(entry: Entry, header: Header, number: int) -> None:
    is_image = entry.status != "none"
    has_all = entry.record is not None and entry.find is not None and entry.origin is not None
    has_none = entry.record is None and entry.find is None and entry.origin is None and entry.evidence is None
    if is_image != has_all or (not is_image and not has_none):
        raise EvidenceInvalid(f"the manifest's line {number}: members of an image where there is none, or missing", "manifest")
    if header.kind == "visit" and (entry.subject, entry.visit) != (header.subject, header.visit):
        raise EvidenceInvalid(f"the manifest's line {number} is of another visit than its header", "manifest")


def _check_end(header: Header, count: int) -> None:
    if not count and header.kind != "heartbeat":
        raise EvidenceInvalid(f"the manifest lists nothing: a {header.kind} has one entry at least", "manifest")
