"""What a report says, and in which order. FORMAT.md §10; 21 CFR 11.50 for signatures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from ledger.audit.report import drawing
from ledger.audit.report.document import Banner, Block, Column, Document, Figures, Heading, Items, Paragraph, Table
from ledger.audit.report.text import moment, shown
from ledger.audit.report.words import Words
from ledger.audit.result import AuditResult, Finding, SetToken, Step, VisitResult

EXCEPTIONS_SHOWN: Final = 25
"""Of each group of exceptions in a report for people; CSV and JSON list all."""
VISITS_SHOWN: Final = 300
STEPS_SHOWN: Final = 36
_MATRIX_VISITS, _MATRIX_SUBJECTS = 7, 40

_ORDER: Final = (
    *(f"image_{token}" for token in ("ALTERED", "MISMATCH", "REVOKED", "STRIPPED", "DECLARED_SYNTHETIC")),
    *("withheld_declared", "withheld_counter", "unexpected_image", "unexpected_visit", "missing_image", "other_record"),
    *("image_UNREGISTERED", "image_PENDING", "image_other", "not_checked"),
    *(f"custody_{word}" for word in ("fork", "gap", "role", "time", "content", "other")),
    *("visit_open", "manifest_open", "duplicate_image"),
)
"""Groups of exceptions, what harms most first."""


def group(finding: Finding, words: Words) -> str:
    """The group that a finding is explained in."""
    if finding.kind == "image_not_in_order":
        name = f"image_{finding.verdict}"
        return name if words.has(f"kinds.{name}") else "image_other"
    if finding.kind == "custody":
        name = f"custody_{finding.parameters.get('finding', '')}"
        return name if words.has(f"kinds.{name}") else "custody_other"
    return finding.kind


@dataclass
class Exceptions:
    """Findings as they stream by: how many there are of each group, and the first `EXCEPTIONS_SHOWN` with their numbers."""

    words: Words
    counts: Counter[str] = field(default_factory=Counter)
    kept: dict[str, list[tuple[int, Finding]]] = field(default_factory=dict)
    total: int = 0

    def add(self, finding: Finding) -> int:
        """The number of the finding in every format of this report, from 1."""
        self.total += 1
        name = group(finding, self.words)
        self.counts[name] += 1
        kept = self.kept.setdefault(name, [])
        if len(kept) < EXCEPTIONS_SHOWN:
            kept.append((self.total, finding))
        return self.total

    def groups(self) -> list[str]:
        """Those that there are, what harms most first."""
        return [name for name in _ORDER if self.counts[name]]


@dataclass(frozen=True)
class Copy:
    """Whom a copy is for, whether that audience sees what was withheld, and the file that lists all exceptions, if any."""

    audience: str
    sees_withheld: bool
    findings_file: str | None


def document(result: AuditResult, exceptions: Exceptions, copy: Copy, words: Words) -> Document:
    """The report of a result. What `copy` may not see is not in `result` any more (`ledger.audit.result.blinded`)."""
    blocks = (
        *_summary(result, exceptions, copy, words),
        *_exceptions(exceptions, copy, words),
        *_visits(result, copy, words),
        *_timeline(result, words),
        *_signatures(result, words),
        *_not_shown(words),
        *_about(result, copy, words),
        *_clauses(words),
    )
    title = words("title.document", trial=shown(result.trial, 80), site=shown(result.site, 80))
    software = shown(result.software, 80)
    return Document(words.lang, title, words("title.report"), words("title.page"), software, result.finished, blocks)


def _summary(result: AuditResult, exceptions: Exceptions, copy: Copy, words: Words) -> Iterator[Block]:
    yield Heading(2, "summary", words("title.summary"))
    token = str(result.token)
    yield Banner(
        token,
        f"{shown(result.trial)} - {shown(result.site)} - {moment(result.finished, '')} UTC",
        (words("summary.means"), words(f"tokens.{token}.means")),
        (words("summary.means_not"), words(f"tokens.{token}.not")),
    )
    if token != SetToken.COMPLETE:
        yield Paragraph(words("summary.order"), kind="aside")
    yield Paragraph(words("summary.full" if copy.sees_withheld else "summary.blinded"), kind="note")
    in_order = sum(visit.in_order for visit in result.visits)
    yield Figures(
        (
            (words("figures.listed"), words.number(result.listed)),
            (words("figures.present"), words.number(result.present)),
            (words("figures.in_order"), words.number(in_order)),
            (words("figures.exceptions"), words.number(exceptions.total)),
            (words("figures.visits"), words.number(len(result.visits))),
        )
    )
    if exceptions.total:
        yield Paragraph(
            words("summary.exceptions_here"), lead=words("summary.exceptions", count=words.number(exceptions.total))
        )
        names = exceptions.groups()
        lines = tuple(_counted(words(f"kinds.{name}.title"), exceptions.counts[name], words) for name in names)
        yield Items(lines, tuple(names))
    else:
        yield Paragraph(words("summary.no_exceptions"))
    yield from _matrix(result.visits, words)
    if result.images:
        columns = (
            Column(words("figures.verdict"), 1.5, "token"),
            Column(words("figures.images"), 0.8, "number"),
            Column(words("figures.meaning"), 5),
        )
        rows = [(shown(name), words.number(count), _verdict(name, words)) for name, count in sorted(result.images.items())]
        yield Table(words("figures.verdicts"), columns, tuple(rows))


def _counted(title: str, count: int, words: Words) -> str:
    return words("summary.group", title=title, count=words.number(count))


def _verdict(token: str, words: Words) -> str:
    return words(f"verdicts.{token}") if words.has(f"verdicts.{token}") else ""


def _matrix(visits: Sequence[VisitResult], words: Words) -> Iterator[Block]:
    names = list(dict.fromkeys(visit.visit for visit in visits))
    subjects = list(dict.fromkeys(visit.subject for visit in visits))
    if not visits:
        return
    if len(names) > _MATRIX_VISITS or len(subjects) > _MATRIX_SUBJECTS:
        counts = Counter(str(visit.token) for visit in visits)
        lines = (_counted(token, counts[token], words) for token in SetToken if counts[token])
        yield Paragraph(words("summary.matrix_too_large"), lead=", ".join(lines) + ".")
        return
    cells = {(visit.subject, visit.visit): _cell(visit, words) for visit in visits}
    columns = (Column(words("visits.subject"), 1.2), *(Column(shown(name, 60), 1, "token") for name in names))
    rows = [
        (shown(subject, 60), *(cells.get((subject, name), words("summary.not_a_visit")) for name in names))
        for subject in subjects
    ]
    yield Table(words("summary.matrix"), columns, tuple(rows))


def _cell(visit: VisitResult, words: Words) -> str:
    share = words("summary.matrix_cell", in_order=words.number(visit.in_order), listed=words.number(visit.listed))
    return f"{visit.token}\n{share}"


def _exceptions(exceptions: Exceptions, copy: Copy, words: Words) -> Iterator[Block]:
    yield Heading(2, "exceptions", words("title.exceptions"))
    if not exceptions.total:
        yield Paragraph(words("summary.no_exceptions"))
        return
    yield Paragraph(words("exceptions.language"), kind="aside")
    for name in exceptions.groups():
        count, kept = exceptions.counts[name], exceptions.kept[name]
        title = words(f"kinds.{name}.title")
        yield Heading(3, name, f"{title} ({words.number(count)})")
        yield Paragraph(words(f"kinds.{name}.means"))
        yield Paragraph(words(f"kinds.{name}.next"), lead=words("exceptions.next"))
        columns = (
            Column(words("exceptions.number"), 0.6, "number"),
            Column(words("timeline.step" if name.startswith("custody") else "exceptions.where"), 1.4),
            Column(words("exceptions.image"), 3, "code"),
            Column(words("exceptions.said"), 2.9),
        )
        rows = tuple(_exception(number, finding, words) for number, finding in kept)
        yield Table(words("exceptions.caption", title=title), columns, rows, is_spoken=True)
        if count > len(kept):
            key = "exceptions.more" if copy.findings_file else "exceptions.more_anywhere"
            numbers = {"shown": words.number(len(kept)), "count": words.number(count)}
            yield Paragraph(words(key, file=copy.findings_file or "", **numbers), kind="aside")


def _exception(number: int, finding: Finding, words: Words) -> tuple[str, ...]:
    none = words("exceptions.none")
    where = [shown(part, 80) for part in (finding.subject, finding.visit) if part]
    if finding.kind == "custody":
        known = finding.parameters
        step = {"action": drawing.action(known.get("action", "?"), words), "by": shown(known.get("by", "?"), 80)}
        where = [words("exceptions.step", count=shown(known.get("count", "1"), 20), **step)]
    evidence = []
    if finding.path is not None:
        evidence.append(words("exceptions.of_file", path=shown(finding.path)))
    if finding.record_id:
        evidence.append(words("exceptions.of_record", record=shown(finding.record_id)))
    said = shown(finding.detail, 600) or none
    return (words.number(number), "\n".join(where) or none, "\n".join(evidence) or none, said)


def _visits(result: AuditResult, copy: Copy, words: Words) -> Iterator[Block]:
    yield Heading(2, "visits", words("title.visits"))
    if not result.visits:
        yield Paragraph(words("visits.none"))
        return
    shown_visits: Sequence[VisitResult] = result.visits
    if len(shown_visits) > VISITS_SHOWN:
        shown_visits = sorted(shown_visits, key=lambda visit: visit.token is SetToken.COMPLETE)[:VISITS_SHOWN]
    columns = [
        Column(words("visits.subject"), 1.6),
        Column(words("visits.visit"), 1.6),
        Column(words("visits.token"), 1.7, "token"),
        *(Column(words(f"visits.{name}"), 1.4, "number") for name in ("listed", "present", "in_order")),
    ]
    if copy.sees_withheld:
        columns.append(Column(words("visits.withheld"), 1.4, "number"))
    columns.append(Column(words("visits.expected"), 1.3))
    rows = []
    for visit in shown_visits:
        counts = [visit.listed, visit.present, visit.in_order, *([visit.withheld] if copy.sees_withheld else [])]
        expected = words("visits.is_expected" if visit.is_expected else "visits.is_not_expected")
        names = (shown(visit.subject, 80), shown(visit.visit, 80), str(visit.token))
        rows.append((*names, *(words.number(count) for count in counts), expected))
    yield Table(words("visits.caption"), tuple(columns), tuple(rows))
    if len(rows) < len(result.visits):
        numbers = {"shown": words.number(len(rows)), "count": words.number(len(result.visits))}
        yield Paragraph(words("visits.more", **numbers), kind="aside")


def _timeline(result: AuditResult, words: Words) -> Iterator[Block]:
    yield Heading(2, "timeline", words("title.timeline"))
    if not result.timeline:
        yield Paragraph(words("timeline.none"))
        return
    steps = list(enumerate(result.timeline, 1))
    if len(steps) > STEPS_SHOWN:
        steps = sorted(sorted(steps, key=lambda one: one[1].finding is None)[:STEPS_SHOWN], key=lambda one: one[0])
    yield Paragraph(words("timeline.lead"))
    yield Paragraph(words("timeline.scale"), kind="aside")
    yield from drawing.timeline(steps, words)
    columns = (
        Column(words("timeline.number"), 0.7, "number"),
        Column(words("timeline.step"), 1.5),
        Column(words("timeline.by"), 2.1),
        Column(words("timeline.images"), 1, "number"),
        Column(words("timeline.claimed"), 1.8),
        Column(words("timeline.between"), 1.8),
        Column(words("timeline.finding"), 2.2),
    )
    yield Table(words("timeline.caption"), columns, tuple(_step(number, step, words) for number, step in steps), header=1)
    if len(steps) < len(result.timeline):
        numbers = {"shown": words.number(len(steps)), "count": words.number(len(result.timeline))}
        yield Paragraph(words("timeline.more", **numbers), kind="aside")


def _step(number: int, step: Step, words: Words) -> tuple[str, ...]:
    found = drawing.finding(step.finding, words)
    if step.finding and step.detail:
        found = f"{found}\n{shown(step.detail)}"
    return (
        words.number(number),
        drawing.action(step.action, words),
        shown(step.by, 120),
        words.number(step.count),
        moment(step.claimed, ""),
        _bracket(step.between, words),
        found,
    )


def _bracket(between: tuple[int | None, int | None], words: Words) -> str:
    return "\n".join(moment(time, words("timeline.not_proven")) for time in between)


def _signatures(result: AuditResult, words: Words) -> Iterator[Block]:
    yield Heading(2, "signatures", words("title.signatures"))
    found = len({signature.name for signature in result.signatures})
    yield Paragraph(words("signatures.required", count=words.number(result.approvals_required), found=words.number(found)))
    if not result.signatures:
        yield Paragraph(words("signatures.none"))
        return
    columns = (
        Column(words("signatures.name"), 1.8),
        Column(words("signatures.meaning"), 1.6),
        Column(words("signatures.time"), 1.5),
        Column(words("signatures.between"), 1.5),
        Column(words("signatures.record"), 2.6, "code"),
    )
    rows = [
        (
            shown(one.name),
            shown(one.meaning),
            moment(one.time, ""),
            _bracket(one.between, words),
            shown(one.record_id),
        )
        for one in result.signatures
    ]
    yield Table(words("signatures.caption"), columns, tuple(rows))


def _not_shown(words: Words) -> Iterator[Block]:
    yield Heading(2, "not-shown", words("title.not_shown"))
    yield Paragraph(words("not_shown.lead"))
    yield Items(words.items("not_shown.items"))
    yield Paragraph(words("not_shown.unsigned"))


def _about(result: AuditResult, copy: Copy, words: Words) -> Iterator[Block]:
    yield Heading(2, "about", words("title.about"))
    kind, audience = result.manifest_kind, copy.audience
    as_of = moment(result.trust_as_of, "")
    values = {
        "trial": shown(result.trial),
        "site": shown(result.site),
        "kind": words(f"kinds_of_list.{kind}") if words.has(f"kinds_of_list.{kind}") else shown(kind),
        "record": shown(result.manifest_record),
        "digest": shown(result.manifest_digest),
        "audience": words(f"audiences.{audience}") if words.has(f"audiences.{audience}") else shown(audience, 80),
        "chain": str(result.chain_id),
        "anchor_log": shown(result.anchor_log),
        "trust_as_of": f"{as_of} UTC" if as_of else words("about.not_known"),
        "mode": words("about.offline" if result.offline else "about.online"),
        "started": f"{moment(result.started, '')} UTC",
        "finished": f"{moment(result.finished, '')} UTC",
        "software": shown(result.software),
        "exit_code": str(result.exit_code),
    }
    columns = (Column(words("about.item"), 1), Column(words("about.value"), 3, "code"))
    yield Table(words("about.caption"), columns, tuple((words(f"about.{name}"), value) for name, value in values.items()))
    yield Paragraph(words("about.characters"), kind="aside")


def _clauses(words: Words) -> Iterator[Block]:
    yield Heading(2, "clauses", words("title.clauses"))
    yield Paragraph(words("clauses.lead"))
    columns = (
        Column(words("clauses.clause"), 1.8),
        Column(words("clauses.part"), 1.6),
        Column(words("clauses.supports"), 3.4),
    )
    rows = tuple(
        (f"{words('clauses.' + row['source'])}\n{row['clause']}", row["part"], row["supports"])
        for row in words.rows("clauses.rows")
    )
    yield Table(words("clauses.caption"), columns, rows)
