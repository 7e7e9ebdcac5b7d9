"""The rules of FORMAT.md §10 once more, on lists in memory and as slowly as they read: what an audit has to come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ledger.audit.expected import ExpectedVisit
from ledger.core.manifest import Entry, Header
from ledger.core.verdict import EXIT_CODES, Token
from tests.audit.making import TODAY, Scan, word

Manifest = tuple[Header, Sequence[Entry]]
"""The first of several is the audited one."""

WITHHELD, UNEXPECTED, INCOMPLETE, OPEN, COMPLETE = "WITHHELD", "UNEXPECTED", "INCOMPLETE", "OPEN", "COMPLETE"
ORDER = (WITHHELD, UNEXPECTED, INCOMPLETE, OPEN, COMPLETE)
WORST = (1, 5, 8, 9, 6, 7, 3, 4, 0)
IN_ORDER = (Token.AUTHENTIC, Token.DERIVED)


@dataclass
class Outcome:
    token: str
    exit_code: int
    visits: dict[tuple[str, str], tuple[str, int, int, int, int]]
    """(subject, visit) -> token, listed, withheld, present, in order."""
    findings: Counter[tuple[str, str | None, str | None, str | None]]
    """kind, subject, visit, path or counters."""


class Oracle:
    def __init__(self, manifests: Sequence[Manifest], scans: Sequence[Scan], expected: Sequence[ExpectedVisit]) -> None:
        self.main = manifests[0][1]
        self.lists = [entries for head, entries in manifests if head.kind != "heartbeat"]
        self.entries = [one for entries in self.lists for one in entries if one.record]
        self.made = [one for head, entries in manifests if head.kind == "heartbeat" for one in entries if one.record]
        self.heads = [head for head, _ in manifests]
        self.scans = sorted(scans, key=lambda one: one.path.encode())
        self.expected = {(one.subject, one.visit): one for one in expected}
        self.findings: Counter[tuple[str, str | None, str | None, str | None]] = Counter()
        self.of_visit: dict[tuple[str, str], set[str]] = {}
        self.overall: set[str] = {COMPLETE}

    def note(self, kind: str, token: str, subject: str | None, visit: str | None, what: str | None = None) -> None:
        self.findings[kind, subject, visit, what] += 1
        self.overall.add(token)
        if subject is not None and visit is not None:
            self.of_visit.setdefault((subject, visit), {COMPLETE}).add(token)

    # Which listed image a file is: (entry, how sure), 0 proven, 1 its instance, 2 its pixels.
    def recognised(self, scan: Scan, texts: dict[bytes, tuple[str, str]]) -> tuple[Entry, int] | None:
        if not scan.is_read:
            return None
        record = None if scan.record is None else word(scan.record)
        by_record = next((one for one in self.entries if one.record == record), None)
        both = [one for one in self.entries if texts[one.record] == (scan.digest, scan.instance)]
        instance = [one for one in self.entries if texts[one.record][1] == scan.instance]
        pixels = [one for one in self.entries if texts[one.record][0] == scan.digest]
        if scan.token in IN_ORDER and by_record:
            return by_record, 0
        same = both or instance
        if same:
            return min(same, key=lambda one: one.record != record), 1
        if scan.token in IN_ORDER:
            return None
        if pixels:
            return min(pixels, key=lambda one: one.record != record), 2
        return (by_record, 2) if by_record else None

    def outcome(self, texts: dict[bytes, tuple[str, str]]) -> Outcome:
        found = [(scan, self.recognised(scan, texts)) for scan in self.scans]
        groups: dict[bytes, list[tuple[int, bytes, Scan]]] = {}
        for scan, one in found:
            if one:
                groups.setdefault(one[0].record, []).append((one[1], scan.path.encode(), scan))
        best = {record: min(group, key=lambda one: one[:2]) for record, group in groups.items()}
        origins: dict[bytes, tuple[bytes, int]] = {}
        for scan, one in found:
            if one is None:
                kind = "unexpected_image" if scan.is_read else "not_checked"
                self.note(kind, UNEXPECTED if scan.is_read else INCOMPLETE, None, None, scan.path)
                continue
            listed = next(entry for entry in self.entries if entry.record == one[0].record)
            is_best = best[listed.record][2] is scan
            if one[1] == 2 and not is_best:
                self.note("unexpected_image", UNEXPECTED, None, None, scan.path)
                continue
            about = (listed.subject, listed.visit, scan.path)
            if listed.status == "withheld":
                self.note("unexpected_image", UNEXPECTED, *about)
            if not is_best:
                self.note("duplicate_image", COMPLETE, *about)
            if scan.token is Token.NOT_CHECKED:
                self.note("not_checked", INCOMPLETE, *about)
            elif scan.token not in IN_ORDER:
                self.note("image_not_in_order", INCOMPLETE, *about)
            elif one[1] or (listed in self.main and scan.origin != (listed.origin.key, listed.origin.counter)):
                self.note("other_record", INCOMPLETE, *about)
            if is_best and one[1] == 0:
                origins[listed.record] = scan.origin
        there = set(best)
        for one in self.main:
            if one.record and one.record not in there:
                again = any(other.record == one.record and other.status == "sent" for other in self.entries)
                if one.status == "withheld" and not again:
                    self.note("withheld_declared", WITHHELD, one.subject, one.visit)
                elif one.status == "sent":
                    self.note("missing_image", INCOMPLETE, one.subject, one.visit)
        slots = {origins.get(one.record, (one.origin.key, one.origin.counter)) for one in self.entries}
        self.count(slots)
        self.look_at_visits(slots)
        return self.summed_up(best)

    def count(self, slots: set[tuple[bytes, int]]) -> None:
        accounts = [(one, head) for head in self.heads for one in head.accounts]
        made = {(one.origin.key, one.origin.counter) for one in self.made}
        for key in {one.key for one, _ in accounts}:
            own = sorted(
                ((one, head) for one, head in accounts if one.key == key), key=lambda pair: (pair[0].first, pair[0].last)
            )
            others = {counter for one, _ in own for counter in one.others}
            for counter in range(own[0][0].first, max(one.last for one, _ in own) + 1):
                if (key, counter) in slots | made or counter in others:
                    continue
                holding = [(one, head) for one, head in own if one.first <= counter <= one.last]
                one, head = holding[-1] if holding else (None, None)
                subject = (one.subject or head.subject) if one and head else None
                visit = (one.visit or head.visit) if one and head else None
                self.note("withheld_counter", WITHHELD, subject, visit, str(counter))

    def look_at_visits(self, slots: set[tuple[bytes, int]]) -> None:
        ours = {(one.subject, one.visit) for one in self.main}
        listed = {(one.subject, one.visit) for entries in self.lists for one in entries}
        for key in ours:
            count = sum(1 for one in self.main if one.record and (one.subject, one.visit) == key)
            if self.expected and key not in self.expected:
                self.note("unexpected_visit", UNEXPECTED, *key)
            elif key in self.expected and 0 < count < self.expected[key].minimum_images:
                self.note("missing_image", INCOMPLETE, *key)
        for key, asked in self.expected.items():
            if key not in listed and (asked.due is None or asked.due <= TODAY):
                self.note("visit_open", OPEN, *key)
        only_made = {
            (one.subject, one.visit, one.origin.key, one.origin.counter)
            for one in self.made
            if (one.origin.key, one.origin.counter) not in slots
        }
        for subject, visit, _, counter in only_made:
            if (subject, visit) in ours:
                self.note("withheld_counter", WITHHELD, subject, visit, str(counter))
        for key in {one[:2] for one in only_made} - listed - set(self.expected):
            kind, token = ("unexpected_visit", UNEXPECTED) if self.expected else ("visit_open", OPEN)
            self.note(kind, token, *key)

    def summed_up(self, best: dict[bytes, tuple[int, bytes, Scan]]) -> Outcome:
        visits: dict[tuple[str, str], tuple[str, int, int, int, int]] = {}
        listed = {(one.subject, one.visit) for entries in self.lists for one in entries}
        keys = {(one.subject, one.visit) for one in self.main}
        for key in keys | (set(self.expected) - listed):
            tokens = self.of_visit.get(key, {COMPLETE})
            own = [one for one in self.main if one.record and (one.subject, one.visit) == key]
            present = [best[one.record] for one in own if one.record in best]
            visits[key] = (
                next(token for token in ORDER if token in tokens),
                len(own),
                sum(one.status == "withheld" for one in own),
                len(present),
                sum(how == 0 for how, _, _ in present),
            )
        token = next(token for token in ORDER if token in self.overall)
        codes = [0 if token == COMPLETE else 5, *(EXIT_CODES[one.token] if one.is_read else 7 for one in self.scans)]
        return Outcome(token, min(codes, key=WORST.index), visits, self.findings)
