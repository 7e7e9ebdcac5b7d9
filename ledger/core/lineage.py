"""Where an image comes from, and what happened to it since: step 10 of FORMAT.md §9, and the replay of custody in §10."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ledger.core import content
from ledger.core.custody import SAME_CONTENT, Statement
from ledger.core.errors import EvidenceInvalid, LedgerDisagrees, LedgerUnavailable
from ledger.core.evidence import Entry
from ledger.core.records import IMAGE_TYPES, AcquisitionRecord, Approval, CustodyRecord, ManifestRecord, SyntheticRecord
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


@dataclass(frozen=True)
class Lineage:
    """All records that lead to an image: its own first, then its parents, and theirs."""

    links: tuple[Link, ...]

    @property
    def origin(self) -> Standing:
        """The first record of the image: the end of the way along first parents."""
        return next(link.standing for link in self.links if not isinstance(link.entry.record.value, CustodyRecord))

    @property
    def generator(self) -> str | None:
        """What generated the image, or a part of what it was made of; None for an image of which no record says so."""
        records = (link.entry.record.value for link in self.links)
        return next((record.generator for record in records if isinstance(record, SyntheticRecord)), None)

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
        return tuple(_step(link.entry, link.standing) for link in reversed(self.links))


def trace(evidence: Evidence, number: int, entry: Entry, standing: Standing) -> Lineage:
    """The lineage of a record that stands. Raises EvidenceInvalid where a parent is missing or proves nothing."""
    links: list[Link] = []
    known = {standing.record_id: (entry, standing)}
    open_paths: list[tuple[bytes, tuple[bytes, ...]]] = [(standing.record_id, (standing.record_id,))]
    while open_paths:
        record_id, path = open_paths.pop()
        child, child_standing = known[record_id]
        parents: list[tuple[Entry, Standing]] = []
        record = child.record.value
        for parent_id in record.parents if isinstance(record, CustodyRecord) else ():
            if parent_id in path:
                raise EvidenceInvalid("the custody records run in a circle", "custody")
            if parent_id not in known:
                if len(known) == LENGTH_LIMIT:
                    raise EvidenceInvalid(f"more than {LENGTH_LIMIT} custody records lead to one image", "custody")
                parent = evidence.record(number, parent_id)
                if parent is None or not isinstance(parent.record.value, IMAGE_TYPES):
                    raise EvidenceInvalid("the evidence lacks the record of an image that this one was made from", "custody")
                known[parent_id] = parent, stand(evidence, number, parent)
            parents.append(known[parent_id])
        # The way along first parents is walked first, so that the first origin in the list is its end.
        open_paths += [(one.record_id, (*path, one.record_id)) for _, one in reversed(parents)]
        if not any(link.standing.record_id == record_id for link in links):
            links.append(_link(evidence, child, child_standing, parents))
    return Lineage(tuple(links))


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
    return Link(child, standing, false, early, has_new_content)


def _false_items(statement: Statement, child: Entry, parent: Entry) -> tuple[str, ...]:
    """The items of which a receipt is false: kept and yet different, or changed where the action may not change them."""
    leaves = [content.opened(entry.leaf_hashes, entry.record.content) for entry in (child, parent)]
    forbidden = set(statement.changed) - statement.allowed
    return tuple(item for item in content.unequal(*leaves) if item not in statement.changed or item in forbidden) or tuple(
        item for item in statement.changed if item in forbidden
    )


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
    names = {AcquisitionRecord: "acquired", SyntheticRecord: "generated", Approval: "approved", ManifestRecord: "listed"}
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
    return tuple(_follow(evidence, number, entry, standing, {standing.record_id}))


def _follow(evidence: Evidence, number: int, parent: Entry, above: Standing, seen: set[bytes]) -> Iterator[CustodyStep]:
    domain = evidence.trust.domain
    followers = [(one.record.value.id(domain), one) for one in evidence.followers(number, above.record_id)]
    unseen = {record_id: one for record_id, one in followers if record_id not in seen}
    receipts = sum(1 for one in unseen.values() if _what(one) == "received")
    for record_id, one in sorted(unseen.items(), key=lambda pair: _order(pair[1])):
        if len(seen) == LENGTH_LIMIT:
            return
        seen.add(record_id)
        if _makes_another_image(one, parent):
            continue
        standing, finding, detail = _stands(evidence, number, one)
        if finding is None and standing is not None:
            finding, detail = _trail_finding(evidence, one, standing, parent, above, receipts)
        yield _step(one, standing, finding, detail)
        if standing is not None:
            yield from _follow(evidence, number, one, standing, seen)


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
    if record.action != "received":
        return None, ""
    if not isinstance(before, CustodyRecord) or before.action != "transferred":
        return "gap", "received without a transfer to this holder"
    if Statement.of(before).recipient != record.key:
        return "fork", "received by another holder than the one it was transferred to"
    if receipts > 1:
        return "fork", f"one transfer was received {receipts} times"
    return None, ""


def gaps(evidence: Evidence, number: int) -> tuple[CustodyStep, ...]:
    """The custody records and approvals of a bundle that follow a record which is not there."""
    found = []
    bundle = evidence.bundles[number]
    for entry in bundle.entries:
        record = entry.record.value
        named = record.parents if isinstance(record, CustodyRecord) else ()
        for one in (record.content,) if isinstance(record, Approval) else named:
            if evidence.record(number, one) is None:
                found.append(
                    _step(entry, _stands(evidence, number, entry)[0], "gap", "the record that it follows is not there")
                )
                break
    return tuple(found)
