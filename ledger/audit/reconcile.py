"""Reconciling both ways: each listed image is there and in order, each image that is there is listed. FORMAT.md §10."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import islice
from typing import Any, Final, Generic, Protocol, TypeVar

from ledger.audit.expected import ExpectedVisit
from ledger.audit.result import (
    SET_EXIT_CODES,
    AuditResult,
    Finding,
    Kind,
    Row,
    RowStatus,
    SetToken,
    Signature,
    Step,
    VisitResult,
)
from ledger.core.manifest import Account, gaps
from ledger.core.verdict import SEVERITY, CustodyStep, Token, Verdict

IN_ORDER: Final = (Token.AUTHENTIC, Token.DERIVED)
FINDINGS_KEPT: Final = 1000
BATCH: Final = 64

Image = TypeVar("Image")
Image_contra = TypeVar("Image_contra", contravariant=True)


@dataclass(frozen=True)
class Listed:
    """An image that a manifest lists. `number` is the workbook's."""

    number: int
    manifest: int
    record: bytes
    subject: str
    visit: str
    status: str
    evidence: str | None


@dataclass(frozen=True)
class Examined:
    """An image that was verified: which listed one it is, if any, and how it stands to it."""

    path: str
    status: RowStatus
    entry: int | None
    verdict: Verdict


class Book(Protocol):
    """Keeps what was listed and what was found. Every call is on disk when it returns."""

    def listed(self, pixels: bytes, instance: bytes) -> list[Listed]: ...
    def is_examined(self, path: str) -> bool: ...
    def put(self, examined: Sequence[Examined]) -> None: ...
    def counts(self) -> dict[tuple[str, str, int], int]: ...
    def visits(self) -> Iterator[tuple[str, str, dict[str, int]]]: ...
    def rows(self) -> Iterator[Row]: ...
    def repeated(self) -> Iterator[tuple[str, str, str]]: ...
    def accounts(self) -> list[tuple[bytes, Account]]: ...
    def counters(self, key: bytes, first: int, last: int) -> Iterator[int]: ...
    def steps(self) -> list[tuple[CustodyStep, int]]: ...


class Examiner(Protocol[Image_contra]):
    """Who reads and verifies images."""

    def examine(
        self, images: Sequence[Image_contra], find: Callable[[bytes, bytes], list[Listed]]
    ) -> Sequence[tuple[Verdict, list[Listed]]]:
        """The verdict of each, and the listed images that it may be: `find` takes the tokens of its pixels and its instance.
        Unreadable images are verdicts, too."""


@dataclass(frozen=True)
class Scope:
    """What an audit is of, beside its workbook. `device` gives a key's holder in words."""

    trial: str
    site: str
    kind: str
    record_id: str
    digest: str
    is_settled: bool
    open_reason: str
    expected: tuple[ExpectedVisit, ...]
    today: date
    signatures: tuple[Signature, ...]
    approvals_required: int
    chain_id: int
    anchor_log: str
    trust_as_of: int | None
    offline: bool
    software: str
    device: Callable[[bytes], str]


class Reconciling(Generic[Image]):
    """One audit: examines images into a workbook, then says what it shows."""

    def __init__(self, book: Book, examiner: Examiner[Image]) -> None:
        self._book, self._examiner = book, examiner

    def examine(self, images: Iterable[tuple[str, Image]], progress: Callable[[int], None]) -> None:
        """Examines each image that is not in the workbook yet; `progress` takes how many are done."""
        done = 0
        fresh = iter(images)
        while chunk := list(islice(fresh, BATCH)):
            todo = [(path, image) for path, image in chunk if not self._book.is_examined(path)]
            if todo:
                answers = self._examiner.examine([image for _, image in todo], self._book.listed)
                self._book.put(
                    [_examined(path, verdict, listed) for (path, _), (verdict, listed) in zip(todo, answers, strict=True)]
                )
            done += len(chunk)
            progress(done)


def _examined(path: str, verdict: Verdict, listed: Sequence[Listed]) -> Examined:
    same = next((one for one in listed if one.record == verdict.record_id), None)
    entry = same or next(iter(listed), None)
    status: RowStatus
    if entry is None:
        status = "unreadable" if verdict.token is Token.NOT_CHECKED else "unexpected"
    elif same is None and verdict.token in IN_ORDER:
        status = "other_record"
    else:
        status = "listed"
    return Examined(path, status, None if entry is None else entry.number, verdict)


def conclude(book: Book, scope: Scope, started: int, finished: int) -> AuditResult:
    """What the workbook shows, in the memory of one visit and at most `FINDINGS_KEPT` findings."""
    kept: list[Finding] = []
    total = 0
    seen: set[tuple[Kind, str | None, str | None]] = set()
    for finding in findings(book, scope):
        total += 1
        seen.add((finding.kind, finding.subject, finding.visit))
        if len(kept) < FINDINGS_KEPT:
            kept.append(finding)
    visits = _visits(book, scope, seen)
    counts = book.counts()
    images: dict[str, int] = {}
    for (_, verdict, _), count in counts.items():
        images[verdict] = images.get(verdict, 0) + count
    token = _token({kind for kind, _, _ in seen})
    codes = [SET_EXIT_CODES[token], *(code for _, _, code in counts)]
    return AuditResult(
        trial=scope.trial,
        site=scope.site,
        manifest_kind=scope.kind,
        manifest_record=scope.record_id,
        manifest_digest=scope.digest,
        token=token,
        exit_code=min(codes, key=SEVERITY.index),
        listed=sum(visit.listed for visit in visits),
        present=sum(counts.values()),
        images=images,
        visits=visits,
        findings=tuple(kept),
        findings_total=total,
        timeline=_timeline(book),
        signatures=scope.signatures,
        approvals_required=scope.approvals_required,
        chain_id=scope.chain_id,
        anchor_log=scope.anchor_log,
        trust_as_of=scope.trust_as_of,
        offline=scope.offline,
        started=started,
        finished=finished,
        software=scope.software,
    )


_TOKENS: Final[Mapping[Kind, SetToken]] = {
    "withheld_declared": SetToken.WITHHELD,
    "withheld_counter": SetToken.WITHHELD,
    "unexpected_image": SetToken.UNEXPECTED,
    "unexpected_visit": SetToken.UNEXPECTED,
    "missing_image": SetToken.INCOMPLETE,
    "image_not_in_order": SetToken.INCOMPLETE,
    "other_record": SetToken.INCOMPLETE,
    "not_checked": SetToken.INCOMPLETE,
    "visit_open": SetToken.OPEN,
    "manifest_open": SetToken.OPEN,
}
"""What a finding makes of its set. A duplicate and a finding of custody leave a set complete, and are shown."""


def _token(kinds: Iterable[Kind]) -> SetToken:
    """The first that holds, in the order of `SetToken`."""
    found = {_TOKENS[kind] for kind in kinds if kind in _TOKENS}
    return next(token for token in SetToken if token in found or token is SetToken.COMPLETE)


def _visits(book: Book, scope: Scope, seen: set[tuple[Kind, str | None, str | None]]) -> tuple[VisitResult, ...]:
    expected = {(one.subject, one.visit): one for one in scope.expected}
    results: dict[tuple[str, str], VisitResult] = {}

    def result(subject: str, visit: str, counts: Mapping[str, int]) -> VisitResult:
        token = _token(kind for kind, of_subject, of_visit in seen if (of_subject, of_visit) == (subject, visit))
        is_expected = not expected or (subject, visit) in expected
        return VisitResult(
            subject,
            visit,
            token,
            listed=counts.get("listed", 0),
            present=counts.get("present", 0),
            in_order=counts.get("in_order", 0),
            withheld=counts.get("withheld", 0),
            is_expected=is_expected,
        )

    for subject, visit, counts in book.visits():
        results[subject, visit] = result(subject, visit, counts)
    for subject, visit in expected:
        if (subject, visit) not in results:
            results[subject, visit] = result(subject, visit, {})
    return tuple(results[key] for key in sorted(results))


def findings(book: Book, scope: Scope) -> Iterator[Finding]:
    """Every exception, what may unblind first, then image by image."""
    if not scope.is_settled:
        yield Finding("manifest_open", detail=scope.open_reason)
    yield from _unaccounted(book, scope)
    yield from _visit_findings(book, scope)
    for row in book.rows():
        yield from _row_findings(row)
    for subject, visit, path in book.repeated():
        yield Finding("duplicate_image", subject, visit, path)
    for step, count in book.steps():
        if step.finding:
            record_id = None if step.record_id is None else "0x" + step.record_id.hex()
            parameters = {"finding": step.finding, "action": step.action, "by": step.by or "?", "count": str(count)}
            yield Finding("custody", record_id=record_id, detail=step.detail, parameters=parameters)


def _row_findings(row: Row) -> Iterator[Finding]:
    about: dict[str, Any] = {
        "subject": row.subject,
        "visit": row.visit,
        "path": row.path,
        "verdict": row.verdict,
        "record_id": row.record_id,
        "detail": "; ".join(row.reasons),
    }
    if row.status == "missing":
        yield Finding("missing_image", **about)
    elif row.status == "withheld":
        yield Finding("withheld_declared", **about)
    elif row.status == "unexpected":
        yield Finding("unexpected_image", **about)
    elif row.verdict == Token.NOT_CHECKED:
        yield Finding("not_checked", **about)
    elif row.status == "other_record":
        yield Finding("other_record", **about)
    elif row.verdict not in IN_ORDER:
        yield Finding("image_not_in_order", **about)


def _visit_findings(book: Book, scope: Scope) -> Iterator[Finding]:
    expected = {(one.subject, one.visit): one for one in scope.expected}
    listed: set[tuple[str, str]] = set()
    for subject, visit, counts in book.visits():
        listed.add((subject, visit))
        asked = expected.get((subject, visit))
        if expected and asked is None:
            yield Finding("unexpected_visit", subject, visit)
        elif asked is not None and 0 < counts["listed"] < asked.minimum_images:
            parameters = {"count": str(asked.minimum_images - counts["listed"])}
            yield Finding("missing_image", subject, visit, detail=_too_few(counts["listed"], asked), parameters=parameters)
    for (subject, visit), asked in expected.items():
        if (subject, visit) in listed or (asked.due is not None and asked.due > scope.today):
            continue
        detail = "no manifest lists this visit" + (f"; it was due {asked.due.isoformat()}" if asked.due else "")
        yield Finding("visit_open", subject, visit, detail=detail)


def _too_few(listed: int, asked: ExpectedVisit) -> str:
    return f"{listed} images are listed where the protocol asks for {asked.minimum_images}"


def _unaccounted(book: Book, scope: Scope) -> Iterator[Finding]:
    """A finding for each counter of a device that nobody says anything about: a scan was made, and is nowhere."""
    by_key: dict[bytes, list[Account]] = {}
    for key, account in book.accounts():
        by_key.setdefault(key, []).append(account)
    for key, accounts in by_key.items():
        device = scope.device(key)
        for account in accounts:
            known = iter(book.counters(key, account.first, account.last))
            others = iter(account.others)
            for counter in _left_out(account.first, account.last, known, others):
                yield _withheld(counter, device, account.subject, account.visit)
        for gap in gaps([(account.first, account.last) for account in accounts]):
            listed = set(book.counters(key, gap.start, gap.stop - 1))
            for counter in gap:
                if counter not in listed:
                    yield _withheld(counter, device, None, None)


def _withheld(counter: int, device: str, subject: str | None, visit: str | None) -> Finding:
    parameters = {"counter": str(counter), "device": device}
    detail = f"{device} signed a record with counter {counter} that no manifest lists and no account explains"
    return Finding("withheld_counter", subject, visit, detail=detail, parameters=parameters)


def _left_out(first: int, last: int, *explained: Iterator[int]) -> Iterator[int]:
    """The counters from first to last that none of these ascending sequences has."""
    heads = [next(one, last + 1) for one in explained]
    for counter in range(first, last + 1):
        is_explained = False
        for place, one in enumerate(explained):
            while heads[place] < counter:
                heads[place] = next(one, last + 1)
            is_explained = is_explained or heads[place] == counter
        if not is_explained:
            yield counter


def _timeline(book: Book) -> tuple[Step, ...]:
    return tuple(
        Step(
            action=step.operation,
            by=step.by or "?",
            role=step.action,
            claimed=step.claimed_time,
            between=step.between,
            record_id="" if step.record_id is None else "0x" + step.record_id.hex(),
            count=count,
            finding=step.finding,
            detail=step.detail,
        )
        for step, count in book.steps()
    )
