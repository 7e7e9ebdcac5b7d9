from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.core.attributes import ATTRIBUTES, GROUPS, float_text, normalised, number, sequence_text, without_default


def test_the_list_is_the_one_of_the_format() -> None:
    assert len(ATTRIBUTES) == 45
    assert list(GROUPS) == [
        "patient",
        "study",
        "series",
        "instance",
        "acquisition",
        "anatomy",
        "geometry",
        "rescale",
        "equipment",
    ]
    assert GROUPS["geometry"][-1] == "FunctionalGroups"
    assert [keyword for keywords in GROUPS.values() for keyword in keywords] == [a.keyword for a in ATTRIBUTES]
    assert len({a.tag for a in ATTRIBUTES}) == 45


@pytest.mark.parametrize(
    ("vr", "text", "value"),
    [
        ("LO", " padded \0", "padded"),
        ("LO", " a \\ b \0", "a\\b"),
        ("LO", "", None),
        ("LO", "  \0\0", None),
        ("LO", " \\ ", None),
        ("LO", "a\\", "a\\"),
        ("CS", "R\\", "R\\"),
        ("LO", "cafe\u0301", "caf\u00e9"),
        ("PN", "Doe^John^^^", "Doe^John"),
        ("PN", "Doe^John^^=^^=", "Doe^John"),
        ("PN", "=\u5c71\u7530^\u592a\u90ce^=", "=\u5c71\u7530^\u592a\u90ce"),
        ("PN", "^^", None),
        ("DS", "+01.50", "1.5"),
        ("DS", "1.000", "1"),
        ("DS", "-0.0", "0"),
        ("DS", "-.5", "-0.5"),
        ("DS", "5.", "5"),
        ("DS", "1e3\\1E-3\\-2.50e1", "1000\\0.001\\-25"),
        ("DS", "1e9999", "1e9999"),
        ("DS", "abc", "abc"),
        ("DS", ".", "."),
        ("DS", "1\\\\3", "1\\\\3"),
        ("DS", "\u0661", "\u0661"),
        ("IS", "+007", "7"),
        ("IS", "-0", "0"),
        ("DA", "2020.01.31", "20200131"),
        ("DA", "20200131", "20200131"),
        ("TM", "12:34:56", "123456"),
        ("TM", "12:34:56.1200", "123456.12"),
        ("TM", "12:34", "1234"),
        ("TM", "123456.000000", "123456"),
        ("TM", "123456.", "123456"),
        ("TM", "1234", "1234"),
        ("DT", "20200131123456.120000+0100", "20200131123456.12+0100"),
        ("DT", "20200131123456.000&0100", "20200131123456.000&0100"),
        ("DT", "20200131123456.0-0500", "20200131123456-0500"),
        ("UI", "1.2.3\0", "1.2.3"),
    ],
)
def test_values_that_mean_the_same_get_the_same_text(vr: str, text: str, value: str | None) -> None:
    assert normalised(vr, text) == value


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**9), max_value=10**9), st.integers(0, 3))
def test_every_notation_of_a_number_gives_the_one_decimal(value: Decimal, zeros: int) -> None:
    expected = format(value.normalize(), "f")
    expected = "0" if value == 0 else expected
    plain = format(value, "f") if "." in format(value, "f") else format(value, "f") + "."
    for same in (plain + "0" * zeros, f"{value:E}", f"{value:e}".replace("e+", "e"), plain):
        assert number(same) == expected
        assert number(same.lstrip("-")) == expected.lstrip("-")
    assert number(expected) == expected


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_double_keeps_its_value_and_has_no_exponent(value: float) -> None:
    text = float_text(value)
    assert float(text) == value
    assert "e" not in text.lower()


@pytest.mark.parametrize(
    ("keyword", "value", "photometric", "absent"),
    [
        ("RescaleSlope", "1", "", True),
        ("RescaleSlope", "2", "", False),
        ("RescaleIntercept", "0", "", True),
        ("RescaleIntercept", "1", "", False),
        ("PixelAspectRatio", "1\\1", "", True),
        ("PixelAspectRatio", "1\\2", "", False),
        ("RescaleType", "US", "", True),
        ("RescaleType", "HU", "", False),
        ("PresentationLUTShape", "IDENTITY", "MONOCHROME2", True),
        ("PresentationLUTShape", "IDENTITY", "MONOCHROME1", False),
        ("PresentationLUTShape", "INVERSE", "MONOCHROME1", True),
        ("PresentationLUTShape", "INVERSE", "MONOCHROME2", False),
        ("PatientID", "1", "", False),
    ],
)
def test_a_value_equal_to_its_default_counts_as_absent(keyword: str, value: str, photometric: str, absent: bool) -> None:
    assert without_default(keyword, value, photometric) == (None if absent else value)


def test_a_sequence_is_its_lines() -> None:
    assert sequence_text([("0", "A", "x"), ("0", "B", None), ("1", "A", "y")]) == "0.A=x\n1.A=y"
    assert sequence_text([("0", "A", None)]) is None
