"""Where an image comes from, and what happened to it since: step 10 of FORMAT.md §9, and the replay of custody in §10."""

from __future__ import annotations

from dataclasses import dataclass

from ledger.core import content
from ledger.core.custody import SAME_CONTENT, Statement
from ledger.core.errors import EvidenceInvalid, LedgerDisagrees, LedgerUnavailable
from ledger.core.evidence import Entry
from ledger.core.records import (
    IMAGE_TYPES,
    AcquisitionRecord,
    Approval,
    CustodyRecord,
    GatewayRecord,
    ManifestRecord,
    Record,
    SyntheticRecord,
)
from ledger.core.search import Evidence
from ledger.core.standing import Standing, stand
from ledger.core.verdict import CustodyStep, FindingWord

LENGTH_LIMIT = 64
"""Records of one lineage, and steps of one trail."""


@dataclass(frozen=True)
class Link:
    """One record of a lineage, as it stands. `false` are the items of which its receipt is false, `early` says how its time
    contradicts a parent's; `has_new_content` where it is not its first parent's."""

    entry: Entry
    standing: Standing
    false: tuple[str, ...] = ()
    early: str | None = None
    has_new_content: bool = False
    break_in: tuple[FindingWord | None, str] = (None, "")
    """What is wrong with a hand-over, which proves the image none the less."""


@dataclass(frozen=True)
class Lineage:
    """All records that lead to an image: its own first, then its parents, and theirs."""

    links: tuple[Link, ...]

    @property
    def first(self) -> Link:
        """The first record of the image: the end of the way along first parents."""
        return next(link for link in self.links if not isinstance(link.entry.record.value, CustodyRecord))

    @property
    def origin(self) -> Standing:
        return self.first.standing

    @property
    def generator(self) -> str | None:
        """What generated the image, or a part of what it was made of; None for an image of which no record says so."""
        records = (link.entry.record.value for link in self.links)
        return next((record.generator for record in records if isinstance(record, SyntheticRecord)), None)

    @property
    def gateway(self) -> Standing | None:
        """Who held the image, or a part of what it was made of, without knowing where it came from; None where the origin of
        every part is signed."""
        held = (link.standing for link in self.links if isinstance(link.entry.record.value, GatewayRecord))
        return next(held, None)

    @property
    def is_of_unknown_origin(self) -> bool:
        """Whether nobody signed where a part comes from; what is declared synthetic is known to be that."""
        return self.gateway is not None and self.generator is None

    @property
    def refused(self) -> str | None:
        """Why a key was not allowed to sign its part, if so."""
        for number, link in enumerate(self.links):
            if link.standing.refused:
                return link.standing.refused if not number else f"{_what(link.entry)}: {link.standing.refused}"
        return None

    @property
    def false(self) -> tuple[tuple[Link, str], ...]:
        """(the link whose receipt is false, the item)."""
        return tuple((link, item) for link in self.links for item in link.false)

    @property
    def clock(self) -> str | None:
        """How a claimed time contradicts the blocks or a parent, if so."""
        return next(filter(None, (link.standing.clock or link.early for link in self.links)), None)

    @property
    def is_anchored(self) -> bool:
        return all(link.standing.anchor is not None for link in self.links)

    @property
    def is_settled(self) -> bool:
        return all(link.standing.is_settled for link in self.links)

    @property
    def as_of(self) -> int | None:
        """The time of the oldest state in which a key of this lineage was proven; None where one was in none."""
        times = [link.standing.as_of for link in self.links]
        return None if None in times else min(time for time in times if time is not None)

    @property
    def is_derived(self) -> bool:
        return any(link.has_new_content for link in self.links)

    def steps(self) -> tuple[CustodyStep, ...]:
        """For people: the origin first."""
        return tuple(_step(link.entry, link.standing, *link.break_in) for link in reversed(self.links))


def trace(evidence: Evidence, number: int, entry: Entry, standing: Standing) -> Lineage:
    """The lineage of a record that stands. Raises EvidenceInvalid where a parent is missing or proves nothing."""
    tracing = _Tracing(evidence, number, {standing.record_id: (entry, standing)}, {})
    tracing.walk(standing.record_id)
    return Lineage(tuple(tracing.links.values()))


@dataclass(frozen=True)
class _Tracing:
    """A walk along parents, each record once. No way leads in a circle: a record names its parents by their hashes."""

    evidence: Evidence
    number: int
    known: dict[bytes, tuple[Entry, Standing]]
    links: dict[bytes, Link]

    def walk(self, record_id: bytes) -> None:
        """Adds a record's link and those of all that leads to it; the way along first parents comes first."""
        child, standing = self.known[record_id]
        record = child.record.value
        parent_ids = record.parents if isinstance(record, CustodyRecord) else ()
        parents = [self._parent(parent_id) for parent_id in parent_ids]
        self.links[record_id] = _link(self.evidence, child, standing, parents)
        for parent_id in parent_ids:
            if parent_id not in self.links:
                self.walk(parent_id)

    def _parent(self, record_id: bytes) -> tuple[Entry, Standing]:
        if record_id not in self.known:
            if len(self.known) == LENGTH_LIMIT:
                raise EvidenceInvalid(f"more than {LENGTH_LIMIT} custody records lead to one image", "custody")
            parent = self.evidence.record(self.number, record_id)
            if parent is None or not isinstance(parent.record.value, IMAGE_TYPES):
                raise EvidenceInvalid("the evidence lacks the record of an image that this one was made from", "custody")
            self.known[record_id] = parent, stand(self.evidence, self.number, parent)
        return self.known[record_id]


def _link(evidence: Evidence, child: Entry, standing: Standing, parents: list[tuple[Entry, Standing]]) -> Link:
    record = child.record.value
    if not isinstance(record, CustodyRecord):
        return Link(child, standing)
    statement = Statement.of(record)
    first = parents[0][0]
    has_new_content = first.record.content != record.content
    false = _false_items(statement, child, first) if has_new_content else ()
    if not has_new_content and first.record.profile != record.profile:
        raise EvidenceInvalid("a custody record names another profile than its parent with the same content", "custody")
    early = next(filter(None, (_early(evidence, child, standing, *parent) for parent in parents)), None)
    return Link(child, standing, false, early, has_new_content, _handover(record, first.record.value))


def _false_items(statement: Statement, child: Entry, parent: Entry) -> tuple[str, ...]:
    """The items of which a receipt is false: kept and yet different, or changed where the action may not change them."""
    leaves = [content.opened(entry.leaf_hashes, entry.record.content) for entry in (child, parent)]
    false = set(statement.changed) - statement.allowed | set(content.unequal(*leaves)) - set(statement.changed)
    return tuple(item for item in content.ITEMS if item in false)


def _early(evidence: Evidence, child: Entry, standing: Standing, parent: Entry, parent_standing: Standing) -> str | None:
    tolerance = evidence.trust.policy.clock_tolerance_s
    ahead = parent.record.claimed_time - child.record.claimed_time
    if ahead > tolerance:
        return f"{_what(child)} claims a time {ahead} s before the record that it follows"
    anchored, after = standing.bracket[1], parent_standing.bracket[0]
    if anchored is not None and after is not None and anchored < after:
        return f"{_what(child)} was on chain before the record that it follows was made"
    return None


def _what(entry: Entry) -> str:
    """A record in a word, for people."""
    record = entry.record.value
    if isinstance(record, CustodyRecord):
        return record.action
    names = {
        AcquisitionRecord: "acquired",
        SyntheticRecord: "generated",
        GatewayRecord: "held",
        Approval: "approved",
        ManifestRecord: "listed",
    }
    return names[type(record)]


def _step(entry: Entry, standing: Standing | None, finding: FindingWord | None = None, detail: str = "") -> CustodyStep:
    record = entry.record.value
    changed: tuple[str, ...] = ()
    operation = _what(entry)
    if isinstance(record, CustodyRecord):
        try:
            statement = Statement.of(record)
            changed, operation = statement.changed, statement.operation
        except EvidenceInvalid as error:
            finding, detail = finding or "content", detail or str(error)
    return CustodyStep(
        action=_what(entry),
        operation=operation,
        by=None if standing is None else standing.holder.name,
        claimed_time=record.claimed_time,
        between=(None, None) if standing is None else standing.bracket,
        record_id=None if standing is None else standing.record_id,
        parents=record.parents if isinstance(record, CustodyRecord) else (),
        changed=changed,
        statement=record.statement if isinstance(record, CustodyRecord) else None,
        meaning=record.meaning if isinstance(record, Approval) else None,
        finding=finding,
        detail=detail,
    )


# ---- what happened since ---------------------------------------------------------------------------------------------


def replay(evidence: Evidence, number: int, entry: Entry, standing: Standing) -> tuple[CustodyStep, ...]:
    """The steps that follow a record which leave the image as it is, and the approvals: the trail, in order, each with what
    is wrong with it. None of them changes the image's verdict."""
    trail = _Trail(evidence, number, {standing.record_id}, [])
    trail.follow(entry, standing)
    trail.add_loose(entry.record.content)
    return tuple(trail.steps)


@dataclass(frozen=True)
class _Trail:
    """A walk along what follows a record: `seen` are the ids of the records that have had their turn."""

    evidence: Evidence
    number: int
    seen: set[bytes]
    steps: list[CustodyStep]

    @property
    def is_full(self) -> bool:
        """Whether the step that is one too many is there: nothing comes after it."""
        return len(self.steps) == LENGTH_LIMIT

    def follow(self, parent: Entry, above: Standing) -> None:
        """Adds the steps that follow a record, each with what follows it."""
        domain = self.evidence.trust.domain
        followers = {one.record.value.id(domain): one for one in self.evidence.followers(self.number, above.record_id)}
        unseen = {record_id: one for record_id, one in followers.items() if record_id not in self.seen}
        receipts = sum(1 for one in unseen.values() if _what(one) == "received")
        for record_id, one in sorted(unseen.items(), key=lambda pair: _order(pair[1])):
            if self.is_full:
                return
            if record_id in self.seen or _makes_another_image(one, parent):
                continue
            self.seen.add(record_id)
            standing, finding, detail = _stands(self.evidence, self.number, one)
            if finding is None and standing is not None:
                finding, detail = _trail_finding(self.evidence, one, standing, parent, above, receipts)
            self._add(one, standing, finding, detail)
            if standing is not None:
                self.follow(one, standing)

    def add_loose(self, root: bytes) -> None:
        """Adds the steps of an image with this content that follow a record which is not there."""
        for one in self.evidence.loose(self.number, root):
            if self.is_full:
                return
            standing, finding, detail = _stands(self.evidence, self.number, one)
            if finding is None:
                finding, detail = "gap", "the record that it follows is not there"
            self._add(one, standing, finding, detail)

    def _add(self, entry: Entry, standing: Standing | None, finding: FindingWord | None, detail: str) -> None:
        if len(self.steps) == LENGTH_LIMIT - 1:
            finding, detail = "gap", f"more than {LENGTH_LIMIT - 1} steps: the rest was not looked at"
        self.steps.append(_step(entry, standing, finding, detail))


def _order(entry: Entry) -> tuple[int, int]:
    """Steps as the log has them, those that are not in it yet at the end by their own clock."""
    return (entry.included.index if entry.included else 1 << 64, entry.record.claimed_time)


def _makes_another_image(entry: Entry, parent: Entry) -> bool:
    record = entry.record.value
    is_new = isinstance(record, CustodyRecord) and record.action not in SAME_CONTENT
    return is_new and record.content != parent.record.content


def _stands(evidence: Evidence, number: int, entry: Entry) -> tuple[Standing | None, FindingWord | None, str]:
    try:
        standing = stand(evidence, number, entry)
    except (EvidenceInvalid, LedgerUnavailable, LedgerDisagrees) as error:
        return None, "role", str(error)
    return standing, "role" if standing.refused else None, standing.refused or ""


def _recipient(transferred: CustodyRecord) -> bytes | None:
    """To whom a transfer went; None where it does not say so."""
    try:
        return Statement.of(transferred).recipient
    except EvidenceInvalid:
        return None


def _trail_finding(
    evidence: Evidence, entry: Entry, standing: Standing, parent: Entry, above: Standing, receipts: int
) -> tuple[FindingWord | None, str]:
    record, before = entry.record.value, parent.record.value
    late = standing.clock or _early(evidence, entry, standing, parent, above)
    if late:
        return "time", late
    if not isinstance(record, CustodyRecord):
        return None, ""
    if record.content != before.content:
        return "content", "it says that the image stayed as it was, and commits to another one"
    finding, detail = _handover(record, before)
    if finding is None and record.action == "received" and receipts > 1:
        return "fork", f"one transfer was received {receipts} times"
    return finding, detail


def _handover(record: CustodyRecord, before: Record) -> tuple[FindingWord | None, str]:
    """What is wrong with a receipt that follows a record, if so."""
    if record.action != "received":
        return None, ""
    if not isinstance(before, CustodyRecord) or before.action != "transferred":
        return "gap", "received without a transfer to this holder"
    if _recipient(before) != record.key:
        return "fork", "received by another holder than the one it was transferred to"
    return None, ""
