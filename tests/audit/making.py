"""What the tests of audits are made of: manifests, images with the verdict that they will get, and a workbook for them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from ledger.audit.completeness import Scope
from ledger.audit.expected import ExpectedVisit
from ledger.audit.reconciling import Answer, Find, Reconciling
from ledger.audit.workbook import Origin, Source
from ledger.core import content, manifest
from ledger.core.manifest import Account, Entry, Header, Kind, Reader
from ledger.core.verdict import CustodyStep, Token, Verdict
from ledger.store.audit import Workbook

FIND_KEY = bytes(range(32))
IDENTITY = "this audit"
TODAY = date(2026, 7, 1)


def word(*parts: object) -> bytes:
    """32 bytes that stand for something."""
    return content.find_key(repr(parts).encode())


CT, MR = word("CT"), word("MR")


def entry(
    record: object,
    *,
    subject: str = "S-01",
    visit: str = "V1",
    status: str = "sent",
    digest: str | None = None,
    instance: str | None = None,
    origin: tuple[bytes, int] = (CT, 0),
    evidence: str | None = None,
    find_key: bytes = FIND_KEY,
) -> Entry:
    """An entry of an image; without `digest` and `instance` those of `scan(record)`."""
    finder = content.Finder(find_key)
    tokens = (
        finder.token("PixelData", digest or f"pixels of {record}"),
        finder.token("SOPInstanceUID", instance or f"instance of {record}"),
    )
    return Entry.model_validate(
        {
            "subject": subject,
            "visit": visit,
            "status": status,
            "record": word(record),
            "find": b"".join(tokens),
            "origin": {"key": origin[0], "counter": origin[1]},
            "evidence": evidence,
        }
    )


def nothing(subject: str = "S-01", visit: str = "V1") -> Entry:
    """An entry of a visit without images."""
    return Entry(subject=subject, visit=visit, status="none")


def header(
    kind: Kind = "transmittal",
    accounts: Sequence[Account] = (),
    *,
    subject: str | None = None,
    visit: str | None = None,
    find_key: bytes = FIND_KEY,
) -> Header:
    return Header(
        format="scanseal-manifest-1",
        kind=kind,
        trial="ABC-301",
        site="Hospital A",
        subject=subject,
        visit=visit,
        nonce=bytes(16),
        find_key=find_key,
        accounts=tuple(accounts),
    )


def source(head: Header, entries: Iterable[Entry], name: str = "manifest.jsonl") -> Source:
    """A manifest as a file that was verified, at its first entry."""
    file = io.BytesIO()
    digest = manifest.write(head, entries, file)
    file.seek(0)
    return Source(name, Reader(file), digest)


def filed(path: Path, head: Header, entries: Iterable[Entry]) -> Source:
    """A manifest of any length in a file of its own, which stays open."""
    with path.open("wb") as file:
        digest = manifest.write(head, entries, file)
    return Source(path.name, Reader(path.open("rb")), digest)


@dataclass(frozen=True)
class Scan:
    """A file that is there, and what verifying it will give."""

    path: str
    record: object
    token: Token = Token.AUTHENTIC
    digest: str = ""
    instance: str = ""
    origin: tuple[bytes, int] = (CT, 0)
    is_read: bool = True
    custody: tuple[CustodyStep, ...] = ()
    stamp: str = "1"
    reason: str = "as it was made up"


def scan(path: str, record: object, token: Token = Token.AUTHENTIC, **more: object) -> Scan:
    """The file of an image with this record; `digest` and `instance` are those of `entry(record)` unless said."""
    fields = {"digest": f"pixels of {record}", "instance": f"instance of {record}"} | more
    return Scan(path, record, token, **fields)  # type: ignore[arg-type]


@dataclass
class Simulator:
    """An examiner whose verdicts were made up beforehand; it counts what it was asked."""

    examined: list[str] = field(default_factory=list)

    def examine(self, images: Sequence[Scan], find: Find) -> list[Answer]:
        return [self._answer(image, find) for image in images]

    def _answer(self, image: Scan, find: Find) -> Answer:
        self.examined.append(image.path)
        if not image.is_read:
            return Answer(Verdict(Token.NOT_CHECKED, ("it cannot be read",)), is_read=False)
        record = None if image.record is None else word(image.record)
        verdict = Verdict(
            image.token,
            (image.reason,),
            device="Acme CT 3000",
            sealed_between=(100, 200),
            record_id=record,
            custody=image.custody,
        )
        origin = None if record is None else Origin(*image.origin)
        return Answer(verdict, find([image.digest], image.instance), origin)


def scope(expected: Sequence[ExpectedVisit] = (), *, is_settled: bool = True) -> Scope:
    return Scope(
        trial="ABC-301",
        site="Hospital A",
        kind="transmittal",
        record_id="0x01",
        digest="0x02",
        is_settled=is_settled,
        open_reason="" if is_settled else "the list's record is not final on chain yet",
        expected=tuple(expected),
        today=TODAY,
        signatures=(),
        approvals_required=0,
        chain_id=31337,
        anchor_log="0x03",
        trust_as_of=None,
        offline=True,
        software="scanseal 0",
        device=lambda key: {CT: "CT", MR: "MR"}.get(key, "another device"),
    )


def audited(
    path: Path,
    sources: Iterable[Source],
    scans: Iterable[Scan],
    examiner: Simulator | None = None,
    batches: list[int] | None = None,
) -> Workbook:
    """A workbook in which an audit was run to its end. The caller closes it."""
    book = Workbook(path)
    is_loaded, _ = book.begin(IDENTITY, 1000)
    if not is_loaded:
        book.load(sources)
    images: Iterator[tuple[str, str, Scan]] = ((one.path, one.stamp, one) for one in scans)
    Reconciling(book, examiner or Simulator()).examine(images, (batches if batches is not None else []).append)
    return book
