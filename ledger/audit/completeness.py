"""What a workbook shows: every exception, the verdict of each visit, and the one over all of them. FORMAT.md §10."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, get_args

from ledger.audit.expected import ExpectedVisit
from ledger.audit.result import SET_EXIT_CODES, AuditResult, Blinded, Finding, Kind, Row, SetToken, Signature, Step, VisitResult
from ledger.audit.workbook import MAIN, PROVEN, Book, Listed, Sighting, Span
from ledger.core.verdict import SEVERITY, Token

FINDINGS_KEPT: Final = 1000

_Visit = tuple[str, str]


@dataclass(frozen=True)
class Scope:
    """What an audit is of, beside its workbook. `device` gives a key's holder in words; `expected` is empty where the list of
    the protocol is not at hand."""

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


_TOKENS: Final[dict[Kind, SetToken]] = {
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
"""What a finding makes of its set. A copy and a finding of custody leave a set complete, and are shown."""


RESTRICTED: Final = frozenset(kind for kind in get_args(Kind) if Finding(kind).is_restricted)


def conclude(book: Book, scope: Scope, started: int, finished: int) -> AuditResult:
    """What the workbook shows, in the memory of the visits and of at most `FINDINGS_KEPT` findings, those of the worst sets
    first."""
    kept: dict[SetToken, list[Finding]] = {token: [] for token in SetToken}
    kinds: dict[_Visit, set[Kind]] = {}
    everywhere: set[Kind] = set()
    total = restricted = 0
    for finding in findings(book, scope):
        total += 1
        restricted += finding.is_restricted
        everywhere.add(finding.kind)
        if finding.subject is not None and finding.visit is not None:
            kinds.setdefault((finding.subject, finding.visit), set()).add(finding.kind)
        of_its_set = kept[_TOKENS.get(finding.kind, SetToken.COMPLETE)]
        if len(of_its_set) < FINDINGS_KEPT:
            of_its_set.append(finding)
    visits = tuple(_visits(book, scope, kinds))
    counts = book.counts()
    images: dict[str, int] = {}
    for (verdict, _), count in counts.items():
        images[verdict] = images.get(verdict, 0) + count
    token, open_token = _token(everywhere), _token(everywhere - RESTRICTED)
    codes = [code for _, code in counts]
    return AuditResult(
        trial=scope.trial,
        site=scope.site,
        manifest_kind=scope.kind,
        manifest_record=scope.record_id,
        manifest_digest=scope.digest,
        token=token,
        exit_code=_worst(token, codes),
        listed=sum(visit.listed for visit in visits),
        present=sum(counts.values()),
        images=images,
        visits=visits,
        findings=tuple(finding for token in SetToken for finding in kept[token])[:FINDINGS_KEPT],
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
        blinded=Blinded(open_token, _worst(open_token, codes), total - restricted),
    )


def _worst(token: SetToken, codes: Iterable[int]) -> int:
    return min((SET_EXIT_CODES[token], *codes), key=SEVERITY.index)


def rows(book: Book) -> Iterator[Row]:
    """Every image that is there, by path, then every one that is listed and is not."""
    for seen in book.sightings():
        yield seen.row
    yield from book.absent()


def findings(book: Book, scope: Scope) -> Iterator[Finding]:
    """Every exception: of the lists and counters first, then of the visits, then image by image."""
    if not scope.is_settled:
        yield Finding("manifest_open", detail=scope.open_reason)
    yield from _unaccounted(book, scope)
    yield from _visit_findings(book, scope)
    for seen in book.sightings():
        yield from _image_findings(seen)
    for row in book.absent():
        kind: Kind = "withheld_declared" if row.status == "withheld" else "missing_image"
        yield Finding(kind, **_about(row))


def _token(kinds: Iterable[Kind]) -> SetToken:
    """The first that holds, in the order of `SetToken`."""
    found = {_TOKENS.get(kind, SetToken.COMPLETE) for kind in kinds} | {SetToken.COMPLETE}
    return next(token for token in SetToken if token in found)


# ---- visits ---------------------------------------------------------------------------------------------------------


def _visits(book: Book, scope: Scope, kinds: dict[_Visit, set[Kind]]) -> Iterator[VisitResult]:
    """Those of the audited manifest, and those that are expected and nobody else's, by subject and visit. A manifest that is
    not settled leaves each of its visits open."""
    expected = {(one.subject, one.visit) for one in scope.expected}
    its_own: set[Kind] = set() if scope.is_settled else {"manifest_open"}
    results = []
    for visit in book.visits():
        key = (visit.subject, visit.visit)
        found = kinds.get(key, set()) | its_own
        counted = (visit.listed, visit.present, visit.in_order, visit.withheld)
        is_expected = not expected or key in expected
        results.append(VisitResult(*key, _token(found), *counted, is_expected, _token(found - RESTRICTED)))
    for key in expected.difference(book.other_visits(), {(one.subject, one.visit) for one in results}):
        found = kinds.get(key, set())
        results.append(VisitResult(*key, _token(found), 0, 0, 0, 0, True, _token(found - RESTRICTED)))
    return iter(sorted(results, key=lambda one: (one.subject, one.visit)))


def _visit_findings(book: Book, scope: Scope) -> Iterator[Finding]:
    expected = {(one.subject, one.visit): one for one in scope.expected}
    ours: set[_Visit] = set()
    for visit in book.visits():
        key = (visit.subject, visit.visit)
        ours.add(key)
        asked = expected.get(key)
        if expected and asked is None:
            yield Finding("unexpected_visit", *key, detail="the protocol's list does not have this visit")
        elif asked is not None and 0 < visit.listed < asked.minimum_images:
            parameters = {"count": str(asked.minimum_images - visit.listed)}
            detail = f"{visit.listed} images are listed where the protocol asks for {asked.minimum_images}"
            yield Finding("missing_image", *key, detail=detail, parameters=parameters)
    listed = ours.union(book.other_visits())
    for key, asked in expected.items():
        if key not in listed and (asked.due is None or asked.due <= scope.today):
            due = f"; it was due {asked.due.isoformat()}" if asked.due else ""
            yield Finding("visit_open", *key, detail=f"no manifest lists this visit{due}")
    yield from _made_only(book, scope, ours, listed)


def _made_only(book: Book, scope: Scope, ours: set[_Visit], listed: set[_Visit]) -> Iterator[Finding]:
    """What a heartbeat says was made and no list has: withheld from a visit that was closed, else a visit that is open."""
    expected = {(one.subject, one.visit) for one in scope.expected}
    opened: set[_Visit] = set()
    for subject, visit, origin in book.made_only():
        key = (subject, visit)
        if key in ours:
            yield _withheld(origin.key, range(origin.counter, origin.counter + 1), scope, subject, visit)
        elif key not in listed and key not in opened and key not in expected:
            opened.add(key)
            kind: Kind = "unexpected_visit" if expected else "visit_open"
            yield Finding(kind, subject, visit, detail="a heartbeat has images of this visit, and no manifest lists it")


# ---- counters -------------------------------------------------------------------------------------------------------


def _unaccounted(book: Book, scope: Scope) -> Iterator[Finding]:
    """A finding for each run of a device's counters that nobody says anything about: scans were made, and are nowhere."""
    for key, spans in book.accounts():
        for hole in _holes(spans[0].first, max(span.last for span in spans), book.counters(key)):
            for part, span in _parts(hole, spans):
                subject, visit = (None, None) if span is None else (span.subject, span.visit)
                yield _withheld(key, part, scope, subject, visit)


def _holes(first: int, last: int, explained: Iterable[int]) -> Iterator[range]:
    """The runs of counters from first to last that an ascending sequence leaves out, each as a whole: however long one is."""
    start = first
    for counter in explained:
        if counter > last:
            break
        if counter > start:
            yield range(start, counter)
        start = max(start, counter + 1)
    if start <= last:
        yield range(start, last + 1)


def _parts(hole: range, spans: list[Span]) -> Iterator[tuple[range, Span | None]]:
    """A hole cut where accounts (by first counter) begin and end: each part with the account it lies in, None between two."""
    firsts = [span.first for span in spans]
    start = hole.start
    while start < hole.stop:
        place = bisect_right(firsts, start)
        stop = min(hole.stop, firsts[place]) if place < len(firsts) else hole.stop
        span = next((one for one in reversed(spans[:place]) if one.last >= start), None)
        if span is not None:
            stop = min(stop, span.last + 1)
        yield range(start, stop), span
        start = stop


def _withheld(key: bytes, counters: range, scope: Scope, subject: str | None, visit: str | None) -> Finding:
    device, count = scope.device(key), counters.stop - counters.start
    if count == 1:
        text, what = str(counters.start), f"a record with counter {counters.start}"
    else:
        text = f"{counters.start}-{counters.stop - 1}"
        what = f"{count} records with counters {counters.start} to {counters.stop - 1}"
    detail = f"{device} signed {what} that no manifest lists and no account explains"
    parameters = {"counter": text, "count": str(count), "device": device}
    return Finding("withheld_counter", subject, visit, detail=detail, parameters=parameters)


# ---- images ---------------------------------------------------------------------------------------------------------


def _about(row: Row) -> dict[str, Any]:
    return {
        "subject": row.subject,
        "visit": row.visit,
        "path": row.path,
        "verdict": row.verdict,
        "record_id": row.record_id,
        "detail": "; ".join(row.reasons),
    }


def _image_findings(seen: Sighting) -> Iterator[Finding]:
    row, listed = seen.row, seen.listed
    about = _about(row)
    if listed is None:
        kind: Kind = "not_checked" if row.status == "unreadable" else "unexpected_image"
        yield Finding(kind, **about)
    else:
        yield from _listed_findings(seen, listed, about)
    for step in seen.custody:
        step_id = None if step.record_id is None else "0x" + step.record_id.hex()
        parameters = {"finding": step.finding or "", "action": step.action, "by": step.by or "?", "count": "1"}
        yield Finding("custody", **about | {"record_id": step_id, "detail": step.detail}, parameters=parameters)


def _listed_findings(seen: Sighting, listed: Listed, about: dict[str, Any]) -> Iterator[Finding]:
    if listed.status == "withheld":
        # Not a word of why: the finding is for blinded readers, too.
        yield Finding("unexpected_image", **about | {"detail": "the manifest does not list it as sent"})
    if seen.is_copy:
        yield Finding("duplicate_image", **about)
    if seen.row.verdict == Token.NOT_CHECKED:
        yield Finding("not_checked", **about)
    elif not seen.is_in_order:
        yield Finding("image_not_in_order", **about)
    elif seen.how != PROVEN:
        yield Finding("other_record", **about | {"detail": "it is proven by another record than the one that is listed"})
    elif seen.origin != listed.origin and listed.manifest == MAIN:
        detail = "its first record is not the one that the manifest gives as its origin"
        yield Finding("other_record", **about | {"detail": detail})


# ---- custody --------------------------------------------------------------------------------------------------------


def _timeline(book: Book) -> tuple[Step, ...]:
    return tuple(
        Step(
            action=step.operation,
            by=step.by or "?",
            role=step.action,
            claimed=step.claimed_time,
            between=step.between,
            record_id="" if step.record_id is None else "0x" + step.record_id.hex(),
            parents=tuple("0x" + parent.hex() for parent in parents),
            count=count,
            finding=step.finding,
            detail=step.detail,
        )
        for step, count, parents in book.steps()
    )
