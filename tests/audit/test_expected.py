"""The protocol's list of visits as trial offices send it: what is read, and how each mistake is named."""

from __future__ import annotations

import json
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.audit.expected import SIZE_LIMIT, ExpectedVisit, parse
from ledger.core.errors import FixInput

TABLE = "subject,visit,due,modality,minimum_images,site\nS-01,V1,2026-01-31,CT,3,Hôpital A\nS-02,Baseline,,,,\n"
READ = (
    ExpectedVisit("S-01", "V1", date(2026, 1, 31), "Hôpital A", "CT", 3),
    ExpectedVisit("S-02", "Baseline"),
)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_table_is_read_however_it_was_saved(delimiter: str, encoding: str, line_end: str) -> None:
    text = TABLE.replace(",", delimiter).replace("\n", line_end)
    assert parse(text.encode(encoding), "visits.csv") == READ


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\nsubject;visit\nS-01;V1\n",
        '"sep=,"\r\nsubject,visit\r\nS-01,V1\r\n',
        "\ufeffsubject;visit\nS-01;V1\n",
        " Subject ; VISIT \n S-01 ; V1 \n",
        "subject;visit\n\nS-01;V1\n;\n\n",
        '"subject","visit"\n"S-01","V1"',
        "subject;visit;site\nS-01;V1;\n",
        "visit;subject\nV1;S-01\n",
    ],
)
def test_what_spreadsheets_add_is_no_mistake(text: str) -> None:
    assert parse(text.encode(), "visits.csv") == (ExpectedVisit("S-01", "V1"),)


def test_the_delimiter_is_the_headers_not_the_most_frequent_sign() -> None:
    text = 'subject;visit;site\nS-01;V1;"Paris, Lyon, Nice, Metz"\n'
    assert parse(text.encode(), "visits.csv")[0].site == "Paris, Lyon, Nice, Metz"


def test_json_has_the_same_names() -> None:
    rows = [
        {"subject": "S-01", "visit": "V1", "due": "2026-01-31", "modality": "CT", "minimum_images": 3, "site": "Hôpital A"},
        {"subject": "S-02", "visit": "Baseline", "due": None},
    ]
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert parse(json.dumps(rows, ensure_ascii=False).encode(encoding), "visits.json") == READ
    assert parse(b'[{"subject": 101, "visit": 1}]', "visits.json") == (ExpectedVisit("101", "1"),)


WRONG = {
    "": "no column subject and no column visit",
    "subject,visit\n": "no visits",
    "subject;day\nS-01;V1\n": "row 1: no column visit",
    "Jane Doe,1970-01-01\n": "row 1: no column subject and no column visit",
    "subject,visit,dose\nS-01,V1,3\n": "row 1: unknown or repeated: dose",
    "subject,visit,\nS-01,V1,\n": r"row 1: unknown or repeated: \(empty\)",
    "subject,visit,visit\nS-01,V1,V2\n": "row 1: unknown or repeated: visit",
    "subject,visit\nS-01,V1\nS-02,V1\nS-01,V1\n": "row 4: this subject's visit is in row 2 already",
    "sep=,\nsubject,visit\nS-01,V1\nS-01,V1\n": "row 4: this subject's visit is in row 3 already",
    "subject,visit\nS-01,V1,more\n": "row 2: 3 cells where the header has 2",
    "subject,visit\nS-01\n": "row 2: 1 cells where the header has 2",
    "subject,visit\nS-01,\n": "row 2: visit is empty",
    "subject,visit\n  ,V1\n": "row 2: subject is empty",
    f"subject,visit\n{'x' * 257},V1\n": "row 2: subject is too long",
    'subject,visit\n"S\n01",V1\n': "row 3: subject is too long or not printable",
    "subject,visit\nS\u202e01,V1\n": "row 2: subject is too long or not printable",
    "subject,visit,due\nS-01,V1,31.01.2026\n": "row 2: due is a day, YYYY-MM-DD",
    "subject,visit,due\nS-01,V1,2026-02-30\n": "row 2: due is a day",
    "subject,visit,due\nS-01,V1,20260131\n": "row 2: due is a day",
    "subject,visit,minimum_images\nS-01,V1,-1\n": "row 2: minimum_images is a number",
    "subject,visit,minimum_images\nS-01,V1,1.0\n": "row 2: minimum_images is a number",
    "subject,visit,minimum_images\nS-01,V1,²\n": "row 2: minimum_images is a number",
    'subject,visit\n"S-01,V1\n': "row 2: unexpected end of data",
    'subject,visit\n"S"01,V1\n': "row 2: ",
    f"subject,visit,site\nS-01,V1,{'x' * 200_000}\n": "row 2: field larger than",
}


@pytest.mark.parametrize(("text", "reason"), WRONG.items(), ids=range(len(WRONG)))
def test_a_mistake_in_a_table_is_named_with_its_row(text: str, reason: str) -> None:
    with pytest.raises(FixInput, match=f"^visits.csv.*{reason}") as caught:
        parse(text.encode(), "visits.csv")
    assert "Jane" not in str(caught.value)
    assert "S-01" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", "a list of objects"),
        ("[1]", "a list of objects"),
        ("[", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('[{"subject": "S-01", "visit": "V1", "visit": "V2"}]', "a name occurs twice"),
        ('[{"subject": "S-01"}]', "row 1: no column visit"),
        ('[{"subject": "S-01", "visit": "V1", "dose": 1}]', "row 1: unknown or repeated: dose"),
        ('[{"subject": "S-01", "visit": ["V1"]}]', "row 1: visit is neither text nor a whole number"),
        ('[{"subject": "S-01", "visit": true}]', "row 1: visit is neither"),
        ('[{"subject": "S-01", "visit": "V1", "minimum_images": 1.5}]', "row 1: minimum_images is neither"),
        ('[{"subject": "S-01", "visit": NaN}]', "row 1: visit is neither"),
        ('[{"subject": "\\ud800", "visit": "V1"}]', "not JSON"),
        ('[{"subject": "S-01", "visit": "V1"}, {"subject": "S-01", "visit": "V1"}]', "row 2: .* in row 1 already"),
        ('[{"subject": "S-01", "visit": null}]', "row 1: visit is empty"),
    ],
)
def test_a_mistake_in_json_is_named_with_its_row(text: str, reason: str) -> None:
    with pytest.raises(FixInput, match=reason):
        parse(text.encode(), "visits.json")


@pytest.mark.parametrize(
    "data",
    [
        b"subject,visit\nS-\x81,V1\n",
        b"\xff\xfesubject,visit\n1",
        "subject,visit\nS-01,V1\n".encode("utf-32"),
        b"subject,visit\nS-\x00,V1\n",
        b"\x89PNG\r\n\x1a\n\x00\x00",
        b"PK\x03\x04\x14\x00\x06\x00",
    ],
)
def test_what_is_no_text_is_told_so(data: bytes) -> None:
    with pytest.raises(FixInput, match=r"^visits\.csv"):
        parse(data, "visits.csv")


def test_a_list_that_is_too_large_is_not_read() -> None:
    with pytest.raises(FixInput, match="at most"):
        parse(bytes(SIZE_LIMIT + 1), "visits.csv")


def parsed_or_told(data: bytes, name: str) -> bool:
    """Whether there are visits in it, or an error that names the file."""
    try:
        return bool(parse(data, name))
    except FixInput as error:
        return str(error).startswith(name)


@given(st.binary(max_size=200), st.sampled_from(["v.csv", "v.json"]))
def test_any_bytes_are_visits_or_a_clear_error(data: bytes, name: str) -> None:
    assert parsed_or_told(data, name)


@given(st.text(max_size=200), st.sampled_from([",", ";", "\t"]))
def test_any_cells_are_visits_or_a_clear_error(text: str, delimiter: str) -> None:
    assert parsed_or_told(f"subject{delimiter}visit\n{text}".encode("utf-8", "surrogatepass"), "v.csv")
