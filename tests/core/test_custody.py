"""Statements: what each action says, and nothing else is one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.core import content, deidentification
from ledger.core.attributes import GROUPS
from ledger.core.custody import OPERATIONS, SAME_CONTENT, Statement, transferred
from ledger.core.deidentification import Option
from ledger.core.errors import EvidenceInvalid, FixInput
from ledger.core.records import CUSTODY_ROLES, CustodyRecord
from ledger.core.strict import to_b64

KEY = to_b64(b"\2" * 32)
SALTS = {"salts": to_b64(b"\3" * 32)}
BASIC = {"profile": "ps3.15-basic", "options": [], "changed": ["PatientName"]}
EXTRA = {
    "lossy-compression": {"maximum_error": 3, "mean_error": "0.250000"},
    "crop": {"x": 0, "y": 64},
    "correction": {"reason": "entered twice"},
}


def derived(operation: str, **more: object) -> dict:
    return {"operation": operation, "changed": []} | EXTRA.get(operation, {}) | more


STATEMENTS = {
    **{action: (action, {}) for action in ("received", "stored", "exported", "read")},
    "transferred": ("transferred", {"to": KEY}),
    "transcoded": ("transcoded", {"transfer_syntax": "1.2.840.10008.1.2.4.90"}),
    "de-identified": ("de-identified", BASIC),
    **{operation: ("derived", derived(operation)) for operation in OPERATIONS},
}


def record_of(action: str, text: str, parents: int = 1) -> CustodyRecord:
    ids = tuple(bytes([number]) * 32 for number in range(1, parents + 1))
    return CustodyRecord(bytes(32), "p", bytes(32), 0, bytes(32), 0, 0, bytes(32), ids, action, text)


def test_every_action_and_operation_is_here():
    assert {action for action, _ in STATEMENTS.values()} == set(CUSTODY_ROLES)
    assert {"de-identified", "derived"} == set(CUSTODY_ROLES) - SAME_CONTENT


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_is_read_from_a_record_as_it_was_made(name):
    action, members = STATEMENTS[name]
    made = Statement(action, members | {"tool": "scanseal 1"}).with_salts(bytes(16), b"kept")
    read = Statement.of(record_of(action, made.text()))
    assert read == made
    assert read.operation == name
    assert read.changed == tuple(members.get("changed", ()))


@pytest.mark.parametrize(
    ("name", "member"), [(name, member) for name, (_, members) in STATEMENTS.items() for member in members]
)
def test_a_member_that_is_missing_makes_it_none(name, member):
    action, members = STATEMENTS[name]
    with pytest.raises(FixInput):
        Statement(action, {one: value for one, value in members.items() if one != member})


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_member_that_does_not_belong_there_makes_it_none(name):
    action, members = STATEMENTS[name]
    others = {"to": KEY, "transfer_syntax": "1.2", "profile": "ps3.15-basic", "options": [], "changed": [], "operation": "crop"}
    others |= {"maximum_error": 1, "mean_error": "0.000000", "x": 1, "y": 1, "reason": "because", "parent": KEY, "": ""}
    for member in others.keys() - members.keys():
        if (name, member) != ("correction", "operation"):
            with pytest.raises(FixInput):
                Statement(action, members | {member: others[member]})


@pytest.mark.parametrize("action", ["", "Stored", "forwarded", "crop", "received "])
def test_an_unknown_action_is_none(action):
    with pytest.raises(FixInput):
        Statement(action)


def bad(action: str, members: dict, **values: list) -> list[tuple[str, dict]]:
    return [(action, members | {name: value}) for name, wrong in values.items() for value in wrong]


NO_TEXT = ["", "x" * 1025, "a\nb", "a\tb", "a\u00a0b", "a\u200bb", "\ud800", "a\u2028b", "\0", 5, None, ["a"], True]
NO_NUMBER = [-1, 1 << 64, True, 1.0, "1", None, [1]]
NO_LIST = [
    "PatientName",
    {"PatientName": 1},
    None,
    ["Rows"],
    ["PatientName", "PatientName"],
    ["PatientID", "PatientName"],
    [["PatientName"]],
    [None],
    ["patientname"],
    ["PatientName", "PixelData"],
]


@pytest.mark.parametrize(
    ("action", "members"),
    [
        *bad("stored", {}, tool=NO_TEXT, salts=["", KEY[:-1], KEY + "=", to_b64(bytes(31)), None, 5]),
        *bad("transferred", {}, to=["", KEY + "=", KEY[:-1] + "!", to_b64(bytes(31)), to_b64(bytes(33)), None, 5, [KEY]]),
        *bad("transcoded", {}, transfer_syntax=["", "1.", ".1", "1..2", "1.2a", "1 2", "1." + "2" * 63, "\u0661.2", 1.2, None]),
        *bad("de-identified", BASIC, profile=["ps3.15-full", "", None, ["ps3.15-basic"]], changed=NO_LIST),
        *bad("derived", derived("crop"), changed=NO_LIST, x=NO_NUMBER, y=NO_NUMBER),
        *bad("derived", derived("crop"), operation=["sharpen", "", None, 5, ["crop"], {"crop": 1}, "de-identified"]),
        *bad("derived", derived("correction"), reason=NO_TEXT),
        *bad(
            "derived",
            derived("lossy-compression"),
            maximum_error=NO_NUMBER,
            mean_error=[
                "0",
                "0.5",
                "00.500000",
                ".500000",
                "-0.500000",
                "1" * 19 + ".000000",
                "nan",
                "0.50000\u0660",
                0.5,
                None,
            ],
        ),
    ],
    ids=repr,
)
def test_a_value_that_is_not_what_belongs_there_makes_it_none(action, members):
    with pytest.raises(FixInput):
        Statement(action, members)


@pytest.mark.parametrize(
    "options",
    [
        ["retain-everything"],
        ["clean-pixel-data"],
        ["clean-recognizable-visual-features"],
        ["clean-structured-content"],
        ["retain-uids", "clean-graphics"],
        ["retain-uids", "retain-uids"],
        ["retain-longitudinal-full-dates", "retain-longitudinal-modified-dates"],
        "retain-uids",
        None,
    ],
    ids=repr,
)
def test_options_that_are_unknown_impossible_or_in_disorder_make_it_none(options):
    with pytest.raises(FixInput):
        Statement("de-identified", BASIC | {"options": options})


def test_the_options_of_the_format_are_those_that_a_statement_takes():
    taken = set()
    for option in Option:
        try:
            Statement("de-identified", BASIC | {"options": [str(option)]})
            taken.add(str(option))
        except FixInput:
            pass
    assert taken == {
        "clean-descriptors",
        "clean-graphics",
        "retain-device-identity",
        "retain-institution-identity",
        "retain-longitudinal-full-dates",
        "retain-longitudinal-modified-dates",
        "retain-patient-characteristics",
        "retain-safe-private",
        "retain-uids",
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '"stored"',
        "{",
        "{}{}",
        '{"tool":"a","tool":"a"}',
        '{"tool":"\\ud800"}',
        '{"tool":"\ud800"}',
        "\ufeff{}",
        "{}" + " " * 65_535,
        '{"tool":' + "[" * 20 + "]" * 20 + "}",
    ],
    ids=lambda text: repr(text[:20]),
)
def test_text_that_is_no_strict_json_is_no_statement(text):
    with pytest.raises(EvidenceInvalid) as caught:
        Statement.of(record_of("stored", text))
    assert caught.value.step == "custody"


def test_a_statement_is_measured_in_bytes():
    tool = '{"tool":"' + "é" * 1000 + '"}'
    filled = tool + " " * (65_536 - len(tool.encode()))
    assert Statement.of(record_of("stored", filled)).members["tool"] == "é" * 1000
    with pytest.raises(EvidenceInvalid, match="65537 bytes"):
        Statement.of(record_of("stored", filled + " "))


@pytest.mark.parametrize("name", STATEMENTS)
def test_one_parent_but_where_several_images_are_put_together(name):
    action, members = STATEMENTS[name]
    text = json.dumps(members | SALTS)
    limit = 64 if name in ("ai-result", "secondary-capture") else 1
    Statement.of(record_of(action, text, limit))
    for wrong in (0, limit + 1):
        with pytest.raises(EvidenceInvalid):
            Statement.of(record_of(action, text, wrong))
    twice = record_of(action, text)
    with pytest.raises(EvidenceInvalid):
        Statement.of(CustodyRecord(**vars(twice) | {"parents": twice.parents * 2}))


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_record_with_content_of_its_own_is_bound_to_its_salts(name):
    action, members = STATEMENTS[name]
    text = json.dumps(members)
    if action in SAME_CONTENT:
        assert not Statement.of(record_of(action, text)).has_own_content
    else:
        with pytest.raises(EvidenceInvalid, match="salts"):
            Statement.of(record_of(action, text))


@given(st.binary(min_size=16, max_size=16), st.binary(max_size=64), st.integers(0, 128 + 511))
def test_no_other_key_or_salt_is_what_a_statement_is_bound_to(key, kept, bit):
    bound = Statement("stored").with_salts(key, kept)
    assert bound.is_opened_by(key, kept)
    assert not bound.is_opened_by(key, None)
    assert not Statement("stored").is_opened_by(key, kept)
    assert Statement("stored").is_opened_by(key, None)
    both = bytearray(key + kept)
    both[bit // 8 % len(both)] ^= 1 << bit % 8
    assert not bound.is_opened_by(bytes(both[:16]), bytes(both[16:]))


PIXELS = {content.PIXELS, content.DECODED}
NEVER_BY = {
    "lossy-compression": {*GROUPS["patient"], *GROUPS["study"], *GROUPS["geometry"], *GROUPS["rescale"], *GROUPS["anatomy"]},
    "burn-in": {*GROUPS["patient"], *GROUPS["geometry"], *GROUPS["rescale"], *GROUPS["equipment"], "SOPClassUID", "Modality"},
    "crop": {*GROUPS["patient"], *GROUPS["rescale"], *GROUPS["anatomy"], "PixelSpacing", "ImageOrientationPatient"},
    "window": {*GROUPS["patient"], *GROUPS["geometry"], *GROUPS["anatomy"]},
    "ai-result": set(GROUPS["patient"]),
    "secondary-capture": set(GROUPS["patient"]),
    "correction": PIXELS,
    "de-identified": {*PIXELS, *GROUPS["anatomy"], *GROUPS["rescale"], "PixelSpacing", "SOPClassUID", "Modality", "ImageType"},
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_what_an_action_may_never_change_is_not_allowed(name):
    action, members = STATEMENTS[name]
    statement = Statement(action, members)
    assert not statement.allowed & NEVER_BY.get(name, set(content.ITEMS))
    assert statement.allowed <= set(content.ITEMS)
    if name == "de-identified":
        assert statement.allowed == deidentification.may_change(frozenset())


def test_a_transfer_names_the_next_holder():
    assert transferred(b"\2" * 32).recipient == b"\2" * 32
    assert Statement("stored").recipient is None
