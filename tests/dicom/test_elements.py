"""What the strict reader refuses: everything that two readers could see differently."""

from __future__ import annotations

import io
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Callable

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import BIG, EXPLICIT, IMPLICIT, element, encapsulated, item, made, meta, pixels

from ledger.core.errors import ScanSealError, Unreadable
from ledger.dicom import Limits, read

GOOD = made(pixels(2, 2, b"\0\1\2\3", PatientID="7"))
UID = element(0x00080018, "UI", "1.2.3")
PATIENT = element(0x00100020, "LO", "7")
UNDEFINED = 0xFFFFFFFF
SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"


def nested(depth: int) -> bytes:
    content = b""
    for _ in range(depth):
        content = element(0x00081115, "SQ", b"", length=UNDEFINED) + item(content, undefined=True) + SEQUENCE_END
    return content


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_each_encoding_reads_the_same(syntax: str) -> None:
    image = read(made(pixels(2, 2, b"\0\1\2\3", PatientID="7"), syntax=syntax))
    assert image.transfer_syntax == syntax
    assert image.attributes["PatientID"] == "7"
    assert image.attributes["PatientName"] is None
    assert (image.sop_instance_uid, image.frames) == ("1.2.3", 1)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_an_object_without_meta_information_is_read(syntax: str) -> None:
    whole = made(pixels(2, 2, b"\0\1\2\3", PatientID="7"), syntax=syntax)
    image = read(whole[len(meta(syntax)) :])
    assert (image.transfer_syntax, image.attributes["PatientID"]) == (syntax, "7")
    assert read(whole[128 + 4 :]).attributes["PatientID"] == "7"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (UID + PATIENT + PATIENT, "occurs twice"),
        (PATIENT + UID, "comes after"),
        (UID + element(0x00100020, "LO", b"7 ", length=400), "says 400 bytes"),
        (UID + element(0x00100020, "OB", b"7 ", length=0x7FFFFFFE), "says 2147483646 bytes"),
        (UID + PATIENT[:-1], "says 2 bytes where 1"),
        (UID + PATIENT + b"\0\0\0", "3 trailing bytes"),
        (UID + PATIENT + bytes(8), "comes after|unknown VR"),
        (UID + PATIENT.replace(b"LO", b"ZZ"), "unknown VR"),
        (UID + PATIENT.replace(b"LO", b"lo"), "unknown VR"),
        (element(0x00020010, "UI", IMPLICIT) + UID, "transfer syntax|group length|does not belong|meta"),
        (element(0x00000002, "UI", "1.2") + UID, "does not belong"),
        (UID + b"\x10\0\x20\0OB\1\0\2\0\0\0\0\0", "malformed element header"),
        (UID + element(0x00100020, "OB", b"", length=UNDEFINED), "undefined length"),
        (UID + item(b"")[:8], "misplaced delimiter"),
        (UID + SEQUENCE_END, "misplaced delimiter"),
        (UID + element(0x00081115, "SQ", b"", length=UNDEFINED) + item(b""), "cut off"),
        (UID + element(0x00081115, "SQ", b"", length=UNDEFINED) + PATIENT + SEQUENCE_END, "where an item is expected"),
        (UID + element(0x00081115, "SQ", b"", length=UNDEFINED) + item(b"")[:4] + b"\xff\0\0\0" + SEQUENCE_END, "item at byte"),
        (
            UID + element(0x00081115, "SQ", b"", length=UNDEFINED) + item(PATIENT + PATIENT, undefined=True) + SEQUENCE_END,
            "occurs twice",
        ),
        (
            UID + element(0x00081115, "SQ", b"", length=UNDEFINED) + item(PATIENT, undefined=True)[:-8],
            "no delimiter|trailing|cut",
        ),
        (UID + encapsulated(b"ab")[:-8], "without a sequence delimiter"),
        (UID + encapsulated(b"ab")[:-8] + SEQUENCE_END[:-1] + b"\1", "without a sequence delimiter"),
        (UID + encapsulated(b"ab")[:-10], "a fragment at byte"),
        (UID + nested(40), "nested deeper"),
        (UID + nested(5000), "nested deeper"),
        (UID + element(0x7FE00008, "OF", bytes(4)) + element(0x7FE00010, "OB", b"\0\0"), "more than one pixel element"),
    ],
)
def test_what_could_be_read_in_two_ways_is_unreadable(content: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        read(meta() + content)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello world, this is text", "not a DICOM object"),
        (bytes(1000), "not a DICOM object"),
        (bytes(128) + b"DICM", "no transfer syntax"),
        (bytes(128) + b"DICM" + UID, "no transfer syntax"),
        (meta().replace(b"UL\4\0" + meta()[140:144], b"UL\4\0\1\0\0\0") + UID, "group length says"),
        (meta()[:-2] + UID, "no UID|unknown VR"),
        (meta("1.2.x") + UID, "is no UID"),
        (bytes(128) + b"DICM" + element(0x00020010, "UI", EXPLICIT, length=9000), "(0002,0010).*malformed"),
        (bytes(128) + b"DICM" + element(0x00020010, "UI", EXPLICIT) * 2, "(0002,0010).*malformed"),
        (meta()[:140] + b"\2\0", "cut off|malformed"),
    ],
)
def test_what_is_no_dicom_object_is_unreadable(data: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        read(data)


def test_encapsulated_pixels_need_an_explicit_little_endian_data_set() -> None:
    for syntax in (IMPLICIT, BIG):
        value = element(0x7FE00010, "OB", b"", length=UNDEFINED, syntax=syntax) + encapsulated(b"ab")[12:]
        with pytest.raises(Unreadable, match="outside an explicit little endian"):
            read(meta(syntax) + element(0x00080018, "UI", "1.2.3", syntax=syntax) + value)


def test_sequences_of_both_lengths_are_stepped_over() -> None:
    inner = element(0x00100020, "LO", "other")
    for undefined in (False, True):
        content = item(inner, undefined=undefined)
        sequence = (
            element(0x00081115, "SQ", b"", length=UNDEFINED) + content + SEQUENCE_END
            if undefined
            else element(0x00081115, "SQ", content)
        )
        assert read(meta() + UID + sequence + PATIENT).attributes["PatientID"] == "7"
    unknown = element(0x00091010, "UN", b"", length=UNDEFINED)
    unknown += item(element(0x00091011, "LO", "x", syntax=IMPLICIT), undefined=True) + SEQUENCE_END
    assert read(meta() + UID + unknown + PATIENT).attributes["PatientID"] == "7"


def undefined(tag: int, *items: bytes, vr: str = "SQ", syntax: str = EXPLICIT) -> bytes:
    """A sequence of undefined length."""
    return element(tag, vr, b"", length=UNDEFINED, syntax=syntax) + b"".join(items) + SEQUENCE_END


def implicit(tag: int, vr: str, value: bytes | str, length: int | None = None) -> bytes:
    return element(tag, vr, value, syntax=IMPLICIT, length=length)


UID_IMPLICIT = implicit(0x00080018, "UI", "1.2.3")
GENUINE, FORGED = implicit(0x00100020, "LO", "7"), implicit(0x00100020, "LO", "forged")


def seen_by_pydicom(data: bytes) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return str(pydicom.dcmread(io.BytesIO(data)).get("PatientID"))


def explicit_inside_implicit() -> bytes:
    """Implicit by its transfer syntax: a long first element, then the genuine data set. pydicom sees VR UL and switches to
    explicit: a group length of 4 bytes, the forged data set, and all else in an element at the end."""
    length = int.from_bytes(b"UL\4\0", "little")
    forged = UID + element(0x00100020, "LO", "forged")
    rest = length - 4 - len(forged) - 12
    last = b"\xfc\xff\xfc\xffOB\0\0" + struct.pack("<I", rest + len(UID_IMPLICIT + GENUINE))
    return b"\x08\0\0\0UL\4\0" + bytes(4) + forged + last + bytes(rest) + UID_IMPLICIT + GENUINE


def end_inside_a_value() -> bytes:
    """An undefined length where PS3.6 has a name: walked by items it is one; pydicom looks for the delimiter's bytes, and finds
    them in the value of an element inside."""
    last = implicit(0x7FE11010, "OB", b"", length=16 + len(GENUINE))
    inside = implicit(0x00091010, "OB", SEQUENCE_END + FORGED + last)
    return UID_IMPLICIT + undefined(0x00080090, item(inside, undefined=True), vr="PN", syntax=IMPLICIT) + GENUINE


@pytest.mark.parametrize("attack", [explicit_inside_implicit, end_inside_a_value])
def test_an_object_in_which_pydicom_sees_another_patient_is_unreadable(attack: Callable[[], bytes]) -> None:
    assert seen_by_pydicom(meta(IMPLICIT) + attack()) == "forged"
    with pytest.raises(Unreadable, match=r"explicit by its looks|has an undefined length"):
        read(meta(IMPLICIT) + attack())


UNKNOWN = "1.2.3.4"
GE = "1.2.840.113619.5.2"
OTHER_PATIENT = element(0x00100020, "LO", "other")


@pytest.mark.parametrize(
    ("syntax", "content", "reason"),
    [
        (IMPLICIT, implicit(0x00080000, "UL", bytes(6)) + UID_IMPLICIT, r"\(0008,0000\) at byte \d+ has 6 bytes"),
        (IMPLICIT, UID_IMPLICIT + implicit(0x00100000, "UL", b""), r"\(0010,0000\) at byte \d+ has 0 bytes"),
        (EXPLICIT, UID + element(0x00100000, "UL", b"\0\0"), r"\(0010,0000\) at byte \d+ has 2 bytes"),
        (IMPLICIT, implicit(0x00080005, "CS", bytes(0x4141)), "explicit by its looks"),
        (IMPLICIT, implicit(0x00080005, "CS", bytes(0x5A5A)), "explicit by its looks"),
        (GE, UID, "explicit by its looks"),
        (IMPLICIT, UID, "explicit by its looks"),
        (EXPLICIT, UID_IMPLICIT, "unknown VR"),
        (UNKNOWN, UID_IMPLICIT, "unknown VR"),
        (BIG, UID, "unknown VR|says|above 00ff"),
        (EXPLICIT, element(0x00080018, "UI", "1.2.3", syntax=BIG), "above 00ff"),
        (UNKNOWN, element(0x08000018, "UI", "1.2.3"), "above 00ff"),
        (BIG, element(0x08000018, "UI", "1.2.3", syntax=BIG), "above 00ff"),
        (EXPLICIT, UID + undefined(0x00100010, vr="UN"), "VR 'UN' has an undefined length"),
        (IMPLICIT, UID_IMPLICIT + undefined(0x60023000, vr="OW", syntax=IMPLICIT), "has an undefined length"),
        (EXPLICIT, UID + undefined(0x00081115, item(OTHER_PATIENT), vr="UN"), "explicit by its looks"),
        (EXPLICIT, UID + undefined(0x00091010, item(OTHER_PATIENT, undefined=True), vr="UN"), "explicit by its looks"),
        (EXPLICIT, UID + element(0x00082218, "UN", item(element(0x00080100, "SH", "x"))), "explicit by its looks"),
        (EXPLICIT, UID + element(0x00080050, "SH", b"x" * 12, length=13) + b"\0", "has 13 bytes"),
        (IMPLICIT, UID_IMPLICIT + implicit(0x00080050, "SH", b"x" * 12, length=13) + b"\0", "has 13 bytes"),
        (EXPLICIT, UID + element(0x00081115, "SQ", item(OTHER_PATIENT)[:8]) + OTHER_PATIENT, "says 14 bytes where 0"),
        (EXPLICIT, UID + element(0x00081115, "SQ", item(b"", undefined=True)[:8]) + PATIENT, "has no delimiter"),
        (EXPLICIT, UID + element(0x00081115, "SQ", OTHER_PATIENT), "where an item is expected"),
        (EXPLICIT, UID + undefined(0x00081115, item(undefined(0x00081140)[:12])) + PATIENT, "cut off"),
        (EXPLICIT, UID + element(0x00081115, "SQ", item(undefined(0x00081140)[:12])) + PATIENT, "cut off"),
        (EXPLICIT, UID + element(0x00081115, "SQ", item(PATIENT + PATIENT)), "occurs twice"),
        (IMPLICIT, UID_IMPLICIT + implicit(0x00081115, "SQ", item(FORGED)[:8]) + FORGED, "says 14 bytes where 0"),
    ],
)
def test_what_makes_a_reader_switch_or_lose_step_is_unreadable(syntax: str, content: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        read(meta(syntax) + content)


def test_an_unknown_sequence_in_a_big_endian_data_set_is_unreadable() -> None:
    big = element(0x00080018, "UI", "1.2.3", syntax=BIG)
    content = item(implicit(0x00080100, "SH", "x"))
    with pytest.raises(Unreadable, match="in a big endian data set"):
        read(meta(BIG) + big + element(0x00081115, "UN", b"", length=UNDEFINED, syntax=BIG) + content + SEQUENCE_END)
    with pytest.raises(Unreadable, match="in a big endian data set"):
        read(meta(BIG) + big + element(0x00082218, "UN", content, syntax=BIG))


def test_what_looks_like_that_and_is_harmless_is_read() -> None:
    length = element(0x00080000, "UL", struct.pack("<I", 99))
    assert read(meta() + length + UID + PATIENT).attributes["PatientID"] == "7"
    later = implicit(0x00091010, "OB", bytes(0x4C55))
    assert read(meta(IMPLICIT) + UID_IMPLICIT + later + GENUINE).attributes["PatientID"] == "7"
    private = undefined(0x00091010, item(implicit(0x00091011, "LO", "x")), syntax=IMPLICIT)
    assert read(meta(IMPLICIT) + UID_IMPLICIT + private + GENUINE).attributes["PatientID"] == "7"
    unknown = undefined(0x00081115, item(implicit(0x00081150, "UI", "1.2"), undefined=True), vr="UN")
    assert read(meta() + UID + unknown + PATIENT).attributes["PatientID"] == "7"
    assert read(meta(GE) + UID_IMPLICIT + GENUINE).attributes["PatientID"] == "7"
    odd = element(0x00080050, "SH", b"x" * 10, length=11) + b"x"
    assert read(meta() + UID + odd + PATIENT).attributes["PatientID"] == "7"


@pytest.mark.parametrize(("number", "vr"), [(0x00, "OB"), (0x02, "LO"), (0x03, "CS"), (0x10, "LO")])
def test_an_element_of_the_meta_information_with_another_vr_is_unreadable(number: int, vr: str) -> None:
    values = {
        0x00: struct.pack("<I", 0),
        0x02: b"1.2.840.10008.5.1.4.1.1.2\0",
        0x03: b"1.2.3\0",
        0x10: EXPLICIT.encode() + b"\0",
    }
    inner = b"".join(
        element(0x00020000 + n, vr if n == number else "UI" if n else "UL", value)
        for n, value in values.items()
        if n or not number
    )
    with pytest.raises(Unreadable, match=f"\\(0002,00{number:02x}\\) at byte"):
        read(bytes(128) + b"DICM" + inner + UID)


def deflated(content: bytes) -> bytes:
    engine = zlib.compressobj(wbits=-15)
    return meta("1.2.840.10008.1.2.1.99") + engine.compress(content) + engine.flush()


def test_a_deflated_object_is_inflated_within_limits() -> None:
    content = GOOD[len(meta()) :]
    assert read(deflated(content)).digest("px1-sha256") == read(GOOD).digest("px1-sha256")
    trailer = struct.pack("<II", zlib.crc32(content), len(content))
    for end in (b"\0", trailer):
        assert read(deflated(content) + end).frames == 1
    for end in (b"\1", bytes(2), trailer[::-1]):
        with pytest.raises(Unreadable, match="followed by other bytes"):
            read(deflated(content) + end)
    with pytest.raises(Unreadable, match="cut off"):
        read(deflated(content)[:-4])
    with pytest.raises(Unreadable, match="damaged"):
        read(meta("1.2.840.10008.1.2.1.99") + b"\xff" * 40)
    # Some readers take this for zlib's header and inflate what follows; raw, it starts with an empty stored block.
    with pytest.raises(Unreadable, match="zlib's header"):
        read(meta("1.2.840.10008.1.2.1.99") + b"\x78\x9c\x9c\0\x63\xff" + bytes(200))
    referenced = meta("1.2.840.10008.1.2.4.95") + deflated(content)[len(meta("1.2.840.10008.1.2.1.99")) :]
    assert read(referenced).default_profile() == "raw1-sha256"
    bomb = deflated(UID + element(0x7FE00010, "OB", bytes(1 << 24)))
    assert len(bomb) < 1 << 16
    tracemalloc.start()
    with pytest.raises(Unreadable, match="more than 1048576 bytes"):
        read(bomb, limits=Limits(file_bytes=1 << 20))
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()


def test_the_number_of_elements_is_limited() -> None:
    content = b"".join(element(0x00090001 + number, "LO", "") for number in range(1000))
    assert read(meta() + content, limits=Limits(elements=1001)).frames == 0
    with pytest.raises(Unreadable, match="more than 999 elements"):
        read(meta() + content, limits=Limits(elements=999))
    items = element(0x00081115, "SQ", b"", length=UNDEFINED) + item(b"", undefined=True) * 2000 + SEQUENCE_END
    with pytest.raises(Unreadable, match="more than 999 elements"):
        read(meta() + items, limits=Limits(elements=999))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_no_damage_makes_the_reader_fail_in_any_other_way(data: st.DataObject) -> None:
    damaged = bytearray(made(pixels(2, 2, b"\0\1\2\3", PatientID="7"), extra={0x00081115: nested(3)}))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(128, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    kept = data.draw(st.integers(0, len(damaged)))
    try:
        image = read(bytes(damaged[:kept] if data.draw(st.booleans()) else damaged))
        image.default_profile()
    except ScanSealError:
        pass
