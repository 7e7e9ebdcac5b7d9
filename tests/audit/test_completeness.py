"""What an audit comes to: each rule of FORMAT.md §10 by itself, and all of them against an oracle that was written from it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.audit.completeness import FINDINGS_KEPT, conclude, findings, rows
from ledger.audit.expected import ExpectedVisit
from ledger.audit.result import AuditResult, Finding, blinded
from ledger.audit.workbook import Origin
from ledger.core.manifest import Account, Entry, Header
from ledger.core.verdict import CustodyStep, Token
from tests.audit.making import CT, MR, Scan, audited, entry, header, nothing, scan, scope, source, word
from tests.audit.oracle import Oracle, Outcome


def audit(
    tmp_path: Path,
    entries: list[Entry],
    scans: list[Scan],
    *,
    accounts: tuple[Account, ...] = (),
    others: tuple[tuple[Header, list[Entry]], ...] = (),
    expected: tuple[ExpectedVisit, ...] = (),
    is_settled: bool = True,
) -> AuditResult:
    sources = [source(header(accounts=accounts), entries), *(source(*other) for other in others)]
    book = audited(tmp_path / "book.sqlite", sources, scans)
    try:
        return conclude(book, scope(expected, is_settled=is_settled), 1000, 2000)
    finally:
        book.close()


def kinds(result: AuditResult) -> list[str]:
    return [finding.kind for finding in result.findings]


def only(result: AuditResult) -> Finding:
    assert len(result.findings) == 1, result.findings
    return result.findings[0]


def account(first: int, last: int, others: tuple[int, ...] = (), key: bytes = CT, **more: str) -> Account:
    return Account(key=key, first=first, last=last, others=others, **more)


# ---- images -----------------------------------------------------------------------------------------------------------


def test_a_list_whose_images_are_all_there_and_in_order_is_complete(tmp_path: Path) -> None:
    entries = [entry("a"), entry("b", visit="V2"), nothing("S-02")]
    result = audit(tmp_path, entries, [scan("1.dcm", "a"), scan("2.dcm", "b", Token.DERIVED)])
    assert (result.token, result.exit_code, result.findings) == ("COMPLETE", 0, ())
    assert [(one.subject, one.visit, one.listed, one.present, one.in_order) for one in result.visits] == [
        ("S-01", "V1", 1, 1, 1),
        ("S-01", "V2", 1, 1, 1),
        ("S-02", "V1", 0, 0, 0),
    ]
    assert result.images == {"AUTHENTIC": 1, "DERIVED": 1}


def test_a_listed_image_that_is_not_there_is_missing(tmp_path: Path) -> None:
    result = audit(tmp_path, [entry("a"), entry("b")], [scan("1.dcm", "a")])
    finding = only(result)
    assert (finding.kind, finding.subject, finding.visit, finding.record_id) == (
        "missing_image",
        "S-01",
        "V1",
        "0x" + word("b").hex(),
    )
    assert (result.token, result.exit_code) == ("INCOMPLETE", 5)


@pytest.mark.parametrize("token", [token for token in Token if token not in (Token.AUTHENTIC, Token.DERIVED)])
def test_every_other_verdict_is_not_in_order(tmp_path: Path, token: Token) -> None:
    result = audit(tmp_path, [entry("a")], [scan("1.dcm", "a", token)])
    kind = "not_checked" if token is Token.NOT_CHECKED else "image_not_in_order"
    assert (only(result).kind, only(result).path, only(result).verdict) == (kind, "1.dcm", token)
    assert result.token == "INCOMPLETE"
    assert result.visits[0].present == 1
    assert result.visits[0].in_order == 0


def test_an_altered_image_costs_more_than_an_incomplete_list(tmp_path: Path) -> None:
    assert audit(tmp_path, [entry("a")], [scan("1.dcm", "a", Token.ALTERED)]).exit_code == 1


def test_a_pending_image_costs_less(tmp_path: Path) -> None:
    assert audit(tmp_path, [entry("a")], [scan("1.dcm", "a", Token.PENDING)]).exit_code == 5


def test_an_image_that_no_manifest_lists_is_unexpected(tmp_path: Path) -> None:
    result = audit(tmp_path, [entry("a")], [scan("1.dcm", "a"), scan("2.dcm", "b")])
    assert (only(result).kind, only(result).path, result.token) == ("unexpected_image", "2.dcm", "UNEXPECTED")


def test_an_image_that_an_earlier_transmittal_lists_is_expected(tmp_path: Path) -> None:
    earlier = (header(find_key=bytes(32)), [entry("b", find_key=bytes(32))])
    result = audit(tmp_path, [entry("a")], [scan("1.dcm", "a"), scan("2.dcm", "b")], others=(earlier,))
    assert result.token == "COMPLETE"


def test_a_heartbeat_lists_nothing(tmp_path: Path) -> None:
    result = audit(
        tmp_path, [entry("a")], [scan("1.dcm", "a"), scan("2.dcm", "b")], others=((header("heartbeat"), [entry("b")]),)
    )
    assert "unexpected_image" in kinds(result)


def test_a_file_that_cannot_be_read_is_a_row_and_no_unexpected_image(tmp_path: Path) -> None:
    result = audit(tmp_path, [entry("a")], [scan("1.dcm", "a"), scan("2.dcm", None, Token.NOT_CHECKED, is_read=False)])
    assert (only(result).kind, result.token, result.exit_code) == ("not_checked", "INCOMPLETE", 5)


def test_an_image_proven_by_another_record_is_told_apart(tmp_path: Path) -> None:
    other = scan("1.dcm", "earlier", digest="pixels of a", instance="instance of a")
    result = audit(tmp_path, [entry("a")], [other])
    assert (only(result).kind, result.token) == ("other_record", "INCOMPLETE")


def test_wrong_tokens_in_a_list_hide_no_image(tmp_path: Path) -> None:
    result = audit(tmp_path, [entry("a", digest="x", instance="y")], [scan("1.dcm", "a")])
    assert result.token == "COMPLETE"


def test_a_second_file_of_a_listed_image_is_shown(tmp_path: Path) -> None:
    result = audit(tmp_path, [entry("a")], [scan("1.dcm", "a"), scan("2.dcm", "a")])
    assert (only(result).kind, only(result).path, result.token) == ("duplicate_image", "2.dcm", "COMPLETE")


def test_an_altered_copy_does_not_hide_behind_the_good_one(tmp_path: Path) -> None:
    result = audit(tmp_path, [entry("a")], [scan("1.dcm", "a", Token.ALTERED), scan("2.dcm", "a")])
    assert kinds(result) == ["image_not_in_order", "duplicate_image"]
    assert {finding.path for finding in result.findings} == {"1.dcm"}
    assert result.token == "INCOMPLETE"
    assert result.visits[0].in_order == 1


def test_blank_pixels_do_not_make_an_unlisted_image_a_listed_one(tmp_path: Path) -> None:
    blank = scan("1.dcm", "a", Token.MISMATCH, instance="another")
    result = audit(tmp_path, [entry("a")], [blank, scan("2.dcm", "a")])
    assert (only(result).kind, only(result).path, result.token) == ("unexpected_image", "1.dcm", "UNEXPECTED")


def test_an_image_whose_instance_was_renamed_is_still_the_listed_one(tmp_path: Path) -> None:
    result = audit(tmp_path, [entry("a")], [scan("1.dcm", "a", Token.MISMATCH, instance="another")])
    assert (only(result).kind, only(result).subject) == ("image_not_in_order", "S-01")


def test_custody_findings_are_shown_and_leave_the_list_complete(tmp_path: Path) -> None:
    steps = (
        CustodyStep("sealed", "sealed", "CT", 100, (1, 2), word("first")),
        CustodyStep(
            "received", "received", "CRO", 200, (3, 4), word("second"), (word("first"),), finding="gap", detail="no hand-over"
        ),
    )
    result = audit(tmp_path, [entry("a"), entry("b")], [scan("1.dcm", "a", custody=steps), scan("2.dcm", "b", custody=steps)])
    assert result.token == "COMPLETE"
    assert [(one.kind, one.path, one.detail) for one in result.findings] == [
        ("custody", "1.dcm", "no hand-over"),
        ("custody", "2.dcm", "no hand-over"),
    ]
    assert [(one.action, one.by, one.count, one.finding, len(one.parents)) for one in result.timeline] == [
        ("sealed", "CT", 2, None, 0),
        ("received", "CRO", 2, "gap", 1),
    ]
    assert result.timeline[1].parents == (result.timeline[0].record_id,)


# ---- what was withheld ------------------------------------------------------------------------------------------------


def test_an_entry_may_say_that_an_image_was_withheld(tmp_path: Path) -> None:
    result = audit(tmp_path, [entry("a"), entry("b", status="withheld")], [scan("1.dcm", "a")])
    assert (only(result).kind, only(result).is_restricted, result.token) == ("withheld_declared", True, "WITHHELD")
    assert (result.visits[0].token, result.visits[0].withheld, result.visits[0].listed) == ("WITHHELD", 1, 2)


def test_a_blinded_reader_sees_an_audit_in_which_nothing_was_withheld(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "bare").mkdir()
    full = audit(
        tmp_path / "full",
        [entry("a"), entry("b", status="withheld"), entry("c", origin=(CT, 2))],
        [scan("1.dcm", "a")],
        accounts=(account(0, 5, (3,)),),
    )
    bare = audit(tmp_path / "bare", [entry("a"), entry("c", origin=(CT, 2))], [scan("1.dcm", "a")])
    assert (full.token, bare.token) == ("WITHHELD", "INCOMPLETE")
    seen, plain = vars(blinded(full)), vars(bare)
    assert [name for name in plain if name != "visits" and seen[name] != plain[name]] == []
    assert [(one.token, one.listed, one.present, one.in_order) for one in seen["visits"]] == [
        (one.token, one.listed, one.present, one.in_order) for one in plain["visits"]
    ]


def test_a_withheld_image_that_is_there_is_unexpected_and_the_finding_does_not_say_why(tmp_path: Path) -> None:
    result = audit(tmp_path, [entry("b", status="withheld")], [scan("1.dcm", "b")])
    assert (only(result).kind, only(result).is_restricted) == ("unexpected_image", False)
    assert "withheld" not in only(result).detail


def test_what_was_withheld_and_is_sent_later_is_no_gap(tmp_path: Path) -> None:
    earlier = (header(), [entry("b", visit="V0")])
    result = audit(tmp_path, [entry("b", status="withheld")], [], others=(earlier,))
    assert result.token == "COMPLETE"


def test_a_counter_that_nobody_explains_is_a_scan_that_is_nowhere(tmp_path: Path) -> None:
    entries = [entry("a", origin=(CT, 0)), entry("b", origin=(CT, 3))]
    scans = [scan("1.dcm", "a"), scan("2.dcm", "b", origin=(CT, 3))]
    result = audit(tmp_path, entries, scans, accounts=(account(0, 4, (4,), subject="S-01", visit="V1"),))
    finding = only(result)
    assert (finding.kind, finding.parameters) == ("withheld_counter", {"counter": "1-2", "count": "2", "device": "CT"})
    assert (finding.subject, finding.visit, result.token, result.visits[0].token) == ("S-01", "V1", "WITHHELD", "WITHHELD")


def test_a_counter_between_two_accounts_is_left_out_by_both(tmp_path: Path) -> None:
    result = audit(tmp_path, [nothing()], [], accounts=(account(0, 1, (0, 1)), account(3, 3, (3,))))
    assert (only(result).parameters["counter"], only(result).subject) == ("2", None)


def test_accounts_may_overlap_and_one_may_explain_what_another_does_not(tmp_path: Path) -> None:
    others = ((header("heartbeat", [account(2, 5, (2, 4))]), []),)
    result = audit(tmp_path, [entry("a")], [scan("1.dcm", "a")], accounts=(account(0, 5, (1, 3, 5)),), others=others)
    assert result.token == "COMPLETE"


def test_counters_of_another_key_explain_nothing(tmp_path: Path) -> None:
    result = audit(tmp_path, [entry("a", origin=(MR, 0))], [scan("1.dcm", "a", origin=(MR, 0))], accounts=(account(0, 0),))
    assert kinds(result) == ["withheld_counter"]


def test_the_largest_account_takes_no_time_and_one_finding(tmp_path: Path) -> None:
    last = (1 << 64) - 1
    result = audit(
        tmp_path,
        [entry("a", origin=(CT, last))],
        [scan("1.dcm", "a", origin=(CT, last))],
        accounts=(account(0, last, (1 << 63,)),),
    )
    assert [one.parameters["counter"] for one in result.findings] == [f"0-{(1 << 63) - 1}", f"{(1 << 63) + 1}-{last - 1}"]


def test_a_list_that_lies_about_an_origin_hides_no_counter(tmp_path: Path) -> None:
    """Two images of one scan, and the entry of the second says that it began with the scan that is withheld."""
    entries = [entry("a", origin=(CT, 0)), entry("b", origin=(CT, 1))]
    scans = [scan("1.dcm", "a"), scan("2.dcm", "b", Token.DERIVED, origin=(CT, 0))]
    result = audit(tmp_path, entries, scans, accounts=(account(0, 1),))
    assert kinds(result) == ["withheld_counter", "other_record"]
    assert result.findings[0].parameters["counter"] == "1"


def test_what_a_heartbeat_says_was_made_and_a_closed_visit_lacks_was_withheld(tmp_path: Path) -> None:
    heartbeat = (header("heartbeat", [account(0, 1)]), [entry("a"), entry("original of b", origin=(CT, 1))])
    result = audit(tmp_path, [entry("a")], [scan("1.dcm", "a")], others=(heartbeat,))
    finding = only(result)
    assert (finding.kind, finding.visit, finding.parameters["counter"]) == ("withheld_counter", "V1", "1")


def test_what_a_heartbeat_says_was_made_at_another_visit_leaves_that_open(tmp_path: Path) -> None:
    heartbeat = (header("heartbeat"), [entry("b", visit="V2", origin=(CT, 1)), entry("c", visit="V2", origin=(CT, 2))])
    result = audit(tmp_path, [entry("a")], [scan("1.dcm", "a")], others=(heartbeat,))
    assert (only(result).kind, only(result).visit, result.token) == ("visit_open", "V2", "OPEN")


def test_a_heartbeat_of_zero_images_accounts_for_its_counters(tmp_path: Path) -> None:
    heartbeat = (header("heartbeat", [account(0, 2, (1, 2))]), [])
    assert audit(tmp_path, [entry("a")], [scan("1.dcm", "a")], others=(heartbeat,)).token == "COMPLETE"


def test_the_counter_of_a_list_at_hand_is_no_image(tmp_path: Path) -> None:
    def left(slot: Origin | None) -> list[str]:
        beat = replace(source(header("heartbeat", [account(0, 2)]), []), slot=slot)
        book = audited(tmp_path / f"{hash(slot)}.sqlite", [source(header(), [entry("a")]), beat], [scan("1.dcm", "a")])
        try:
            return [one.parameters["counter"] for one in conclude(book, scope(), 1000, 2000).findings]
        finally:
            book.close()

    assert left(None) == ["1-2"]
    assert left(Origin(MR, 2)) == ["1-2"]
    assert left(Origin(CT, 2)) == ["1"]


# ---- visits -----------------------------------------------------------------------------------------------------------


def test_a_visit_that_the_protocol_does_not_have_is_unexpected(tmp_path: Path) -> None:
    result = audit(tmp_path, [entry("a")], [scan("1.dcm", "a")], expected=(ExpectedVisit("S-02", "V1", minimum_images=0),))
    assert ("unexpected_visit", "S-01", "V1") in [(one.kind, one.subject, one.visit) for one in result.findings]
    assert [(one.subject, one.token, one.is_expected) for one in result.visits] == [
        ("S-01", "UNEXPECTED", False),
        ("S-02", "OPEN", True),
    ]


def test_an_expected_visit_without_a_list_is_open_from_the_day_it_is_due(tmp_path: Path) -> None:
    expected = (
        ExpectedVisit("S-01", "V1"),
        ExpectedVisit("S-01", "V2", date(2026, 7, 1)),
        ExpectedVisit("S-01", "V3", date(2026, 7, 2)),
    )
    result = audit(tmp_path, [entry("a")], [scan("1.dcm", "a")], expected=expected)
    assert (only(result).kind, only(result).visit, result.token) == ("visit_open", "V2", "OPEN")
    assert [one.token for one in result.visits] == ["COMPLETE", "OPEN", "COMPLETE"]


def test_an_expected_visit_of_another_transmittal_is_that_ones(tmp_path: Path) -> None:
    expected = (ExpectedVisit("S-01", "V1"), ExpectedVisit("S-01", "V2"))
    earlier = (header(), [entry("b", visit="V2")])
    result = audit(tmp_path, [entry("a")], [scan("1.dcm", "a")], expected=expected, others=(earlier,))
    assert (result.token, [one.visit for one in result.visits]) == ("COMPLETE", ["V1"])


def test_fewer_images_than_the_protocol_asks_for_are_missing(tmp_path: Path) -> None:
    result = audit(tmp_path, [entry("a")], [scan("1.dcm", "a")], expected=(ExpectedVisit("S-01", "V1", minimum_images=3),))
    assert (only(result).kind, only(result).parameters, result.token) == ("missing_image", {"count": "2"}, "INCOMPLETE")


def test_a_visit_without_images_has_none_to_miss(tmp_path: Path) -> None:
    assert audit(tmp_path, [nothing()], [], expected=(ExpectedVisit("S-01", "V1", minimum_images=3),)).token == "COMPLETE"


def test_a_list_that_is_not_settled_leaves_its_visits_open(tmp_path: Path) -> None:
    result = audit(tmp_path, [entry("a")], [scan("1.dcm", "a")], is_settled=False)
    assert (only(result).kind, result.token, result.visits[0].token, result.exit_code) == ("manifest_open", "OPEN", "OPEN", 5)


# ---- many findings ----------------------------------------------------------------------------------------------------


def test_the_worst_findings_are_kept_and_all_are_listed(tmp_path: Path) -> None:
    missing = [entry(number, origin=(CT, number)) for number in range(FINDINGS_KEPT + 50)]
    entries = [*missing, entry("kept back", status="withheld", origin=(CT, 5000))]
    book = audited(tmp_path / "book.sqlite", [source(header(), entries)], [])
    result = conclude(book, scope(), 0, 0)
    assert (len(result.findings), result.findings_total) == (FINDINGS_KEPT, FINDINGS_KEPT + 51)
    assert result.findings[0].kind == "withheld_declared"
    assert sum(1 for _ in findings(book, scope())) == result.findings_total
    assert Counter(row.status for row in rows(book)) == {"missing": FINDINGS_KEPT + 50, "withheld": 1}
    book.close()


# ---- against the oracle -------------------------------------------------------------------------------------------------

RECORDS = [f"r{number}" for number in range(6)]
SUBJECTS, VISITS = ("S-01", "S-02"), ("V1", "V2")
KEYS = (CT, MR)
slots = st.tuples(st.sampled_from(KEYS), st.integers(0, 6))
texts = st.fixed_dictionaries(
    {record: st.tuples(st.sampled_from(["blank", "d1", "d2"]), st.sampled_from(["i1", "i2", "i3", "i4"])) for record in RECORDS}
)


@st.composite
def accounts(draw: st.DrawFn) -> Account:
    first = draw(st.integers(0, 5))
    last = draw(st.integers(first, 6))
    others = draw(st.sets(st.integers(first, last), max_size=3))
    named = draw(st.sampled_from([{}, {"subject": "S-01", "visit": "V1"}]))
    return account(first, last, tuple(sorted(others)), draw(st.sampled_from(KEYS)), **named)


@st.composite
def lists(draw: st.DrawFn, words: dict[str, tuple[str, str]], kind: str) -> tuple[Header, list[Entry]]:
    records = draw(st.lists(st.sampled_from(RECORDS), unique=True, max_size=5))
    entries = [
        entry(
            record,
            subject=draw(st.sampled_from(SUBJECTS)),
            visit=draw(st.sampled_from(VISITS)),
            status=draw(st.sampled_from(["sent", "sent", "withheld"])),
            digest=words[record][0],
            instance=words[record][1],
            origin=draw(slots),
        )
        for record in records
    ]
    pictured = {(one.subject, one.visit) for one in entries}
    for subject in SUBJECTS:
        if (subject, "V2") not in pictured and draw(st.booleans()):
            entries.append(nothing(subject, "V2"))
    if not entries and kind != "heartbeat":
        entries.append(nothing("S-02", "V1"))
    return header(kind, draw(st.lists(accounts(), max_size=2))), draw(st.permutations(entries))


@st.composite
def worlds(
    draw: st.DrawFn,
) -> tuple[list[tuple[Header, list[Entry]]], list[Scan], list[ExpectedVisit], dict[bytes, tuple[str, str]]]:
    words = draw(texts)
    manifests = [draw(lists(words, "transmittal"))]
    manifests += [
        draw(lists(words, kind)) for kind in draw(st.lists(st.sampled_from(["transmittal", "heartbeat"]), max_size=2))
    ]
    scans = []
    for number in range(draw(st.integers(0, 6))):
        token = draw(st.sampled_from([Token.AUTHENTIC, Token.AUTHENTIC, Token.DERIVED, *Token]))
        in_order = token in (Token.AUTHENTIC, Token.DERIVED)
        record = draw(st.sampled_from([*RECORDS, "unknown", *([] if in_order else [None])]))
        like = words.get(draw(st.sampled_from([record, "r0"])) or "", ("d9", "i9"))
        is_read = token is not Token.NOT_CHECKED or draw(st.booleans())
        scans.append(
            scan(f"{number}.dcm", record, token, digest=like[0], instance=like[1], origin=draw(slots), is_read=is_read)
        )
    keys = draw(st.lists(st.tuples(st.sampled_from(SUBJECTS), st.sampled_from((*VISITS, "V3"))), unique=True, max_size=4))
    days = st.sampled_from([None, date(2026, 1, 1), date(2027, 1, 1)])
    expected = [ExpectedVisit(*key, due=draw(days), minimum_images=draw(st.integers(0, 3))) for key in keys]
    return manifests, scans, expected, {word(record): text for record, text in words.items()}


def spread(found: list[Finding]) -> Counter[tuple[str, str | None, str | None, str | None]]:
    """The findings as the oracle has them: one for each counter."""
    counted: Counter[tuple[str, str | None, str | None, str | None]] = Counter()
    for one in found:
        if one.kind == "withheld_counter":
            first, _, last = one.parameters["counter"].partition("-")
            for counter in range(int(first), int(last or first) + 1):
                counted[one.kind, one.subject, one.visit, str(counter)] += 1
        else:
            counted[one.kind, one.subject, one.visit, one.path] += 1
    return counted


@settings(max_examples=120, deadline=None)
@given(worlds())
def test_an_audit_comes_to_what_the_rules_say(
    world: tuple[list[tuple[Header, list[Entry]]], list[Scan], list[ExpectedVisit], dict[bytes, tuple[str, str]]],
) -> None:
    manifests, scans, expected, words = world
    asked: Outcome = Oracle(manifests, scans, expected).outcome(words)
    with TemporaryDirectory() as folder:
        book = audited(Path(folder) / "book.sqlite", [source(*one) for one in manifests], scans)
        try:
            result = conclude(book, scope(expected), 0, 0)
            assert spread(list(findings(book, scope(expected)))) == asked.findings
        finally:
            book.close()
    visits = {
        (one.subject, one.visit): (str(one.token), one.listed, one.withheld, one.present, one.in_order) for one in result.visits
    }
    assert visits == asked.visits
    assert (str(result.token), result.exit_code) == (asked.token, asked.exit_code)
