"""Bound attributes of real files against what pydicom reads, and the rules for what pydicom can't decide."""

from __future__ import annotations

import hashlib
import struct
import unicodedata
import warnings
from decimal import Decimal, InvalidOperation
from typing import Any

import pydicom
import pytest
from corpus import packaged
from making import BIG, EXPLICIT, IMPLICIT, element, item, made, meta, pixels
from pydicom.multival import MultiValue

from ledger.core.attributes import ATTRIBUTES, MACROS, SEQUENCES
from ledger.core.errors import ScanSealError, Unreadable
from ledger.dicom import read

DEFAULTS = {"RescaleSlope": "1", "RescaleIntercept": "0", "PixelAspectRatio": "1\\1", "RescaleType": "US"}


def plain(keyword: str, vr: str, value: Any) -> str | None:
    """FORMAT.md §2.2 on pydicom's decoded values, with Decimal and without the package's code."""
    texts = []
    for one in value if isinstance(value, MultiValue | list) else [value]:
        text = "" if one is None else str(one if vr == "PN" else getattr(one, "original_string", one))
        text = unicodedata.normalize("NFC", text.rstrip(" \0").lstrip(" "))
        if vr == "PN":
            text = "=".join(group.rstrip("^") for group in text.split("=")).rstrip("=")
        elif vr in ("DS", "IS", "FD", "US", "UL") and text:
            try:
                text = format(Decimal(repr(one) if vr == "FD" else text), "f")
            except InvalidOperation:
                pass
            else:
                text = text.rstrip("0").rstrip(".") if "." in text else text
                text = "0" if text == "-0" else text
        elif vr == "DA" and len(text) == 10:
            text = text.replace(".", "")
        elif vr == "TM":
            text = text.replace(":", "")
        if vr in ("TM", "DT") and "." in text:
            text = text.rstrip("0").rstrip(".")
        texts.append(text)
    joined = "\\".join(texts) if any(texts) else None
    return None if joined is not None and joined == DEFAULTS.get(keyword) else joined


def plain_attribute(dataset: pydicom.Dataset, keyword: str, vr: str) -> str | None:
    lines = []
    if keyword == "FunctionalGroups":
        groups = [("shared", group) for group in dataset.get("SharedFunctionalGroupsSequence") or ()]
        groups += [(str(n), group) for n, group in enumerate(dataset.get("PerFrameFunctionalGroupsSequence") or ())]
        for path, group in groups:
            for macro, members in MACROS.values():
                for one in group.get(macro) or ():
                    for member in members:
                        value = plain(member.keyword, member.vr, one.get(member.keyword))
                        if value is not None:
                            lines.append(f"{path}.{macro}.{member.keyword}={value}")
        return "\n".join(lines) or None
    if keyword in SEQUENCES:
        for path, one in enumerate(dataset.get(keyword) or ()):
            for member in SEQUENCES[keyword]:
                if member.keyword not in one:
                    continue
                if member.keyword == "LUTData":
                    entries = one.LUTData
                    packed = struct.pack(f"<{len(entries)}H", *entries) if isinstance(entries, list | MultiValue) else entries
                    value: str | None = "sha256:" + hashlib.sha256(packed).hexdigest()
                else:
                    value = plain("", member.vr, one[member.keyword].value)
                if value is not None:
                    lines.append(f"{path}.{member.keyword}={value}")
        return "\n".join(lines) or None
    value = plain(keyword, vr, dataset.get(keyword))
    if keyword == "PresentationLUTShape":
        return (
            None if value == ("INVERSE" if dataset.get("PhotometricInterpretation") == "MONOCHROME1" else "IDENTITY") else value
        )
    return value


def test_attributes_of_real_files_are_those_that_pydicom_reads() -> None:
    compared, present = 0, set()
    for name, path in packaged().items():
        try:
            image = read(path)
        except ScanSealError:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, force=True)
            expected = {a.keyword: plain_attribute(dataset, a.keyword, a.vr) for a in ATTRIBUTES}
        assert dict(image.attributes) == expected, name
        compared += 1
        present |= {keyword for keyword, value in expected.items() if value is not None}
    assert compared > 240
    assert len(present) >= 38, sorted({a.keyword for a in ATTRIBUTES} - present)


def attributes(*elements: bytes, syntax: str = EXPLICIT) -> dict[str, str]:
    found = read(meta(syntax) + b"".join(elements)).attributes
    assert list(found) == [a.keyword for a in ATTRIBUTES]
    return {keyword: value for keyword, value in found.items() if value is not None}


def name_in(character_set: str | None, value: bytes) -> str:
    declared = [element(0x00080005, "CS", character_set)] if character_set else []
    return attributes(*declared, element(0x00100010, "PN", value))["PatientName"]


@pytest.mark.parametrize(
    ("character_set", "value", "text"),
    [
        ("ISO_IR 192", "Müller^Jörg".encode(), "Müller^Jörg"),
        ("ISO_IR 100", "Müller".encode("latin-1"), "Müller"),
        (None, "Müller".encode("latin-1"), "Müller"),
        ("ISO_IR 192", "Müller".encode("latin-1"), "Müller"),
        ("ISO_IR 192", "Mu\u0308ller".encode(), "Müller"),
        ("GB18030", "王^小东".encode("gb18030"), "王^小东"),
        ("ISO_IR 144", "Люкceмбypг".encode("iso8859-5"), "Люкceмбypг"),
        ("NO SUCH SET", b"M\xfcller", "Müller"),
        ("\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "Yamada^Tarou=山田^太郎"),
        ("\\ISO 2022 IR 149", b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7", "Hong^Gildong=洪^吉洞"),
    ],
)
def test_names_are_decoded_by_their_character_set(character_set: str | None, value: bytes, text: str) -> None:
    assert name_in(character_set, value) == text


def test_text_that_its_character_set_cannot_decode_still_tells_names_apart() -> None:
    assert name_in("ISO_IR 192", b"M\xfcller") != name_in("ISO_IR 192", b"M\xf6ller")


def test_broken_code_extensions_still_tell_names_apart() -> None:
    broken = [name_in("ISO_IR 192", b"A=\x1b$B" + cell) for cell in (b"\xfe\xfe", b"\xfd\xfd")]
    assert broken[0] != broken[1]
    assert "\ufffd" not in "".join(broken)


def test_a_text_attribute_with_a_binary_vr_is_unreadable() -> None:
    with pytest.raises(Unreadable, match=r"\(0010,0020\) has VR US"):
        attributes(element(0x00100020, "US", 7))
    assert attributes(element(0x00100020, "UN", b"7 ")) == {"PatientID": "7"}
    assert attributes(element(0x00100020, "SH", b"7 ")) == {"PatientID": "7"}


def test_a_transcoder_s_additions_change_nothing() -> None:
    added = {
        0x00281052: element(0x00281052, "DS", "0"),
        0x00281053: element(0x00281053, "DS", "1.0"),
        0x00281054: element(0x00281054, "LO", "US"),
        0x20500020: element(0x20500020, "CS", "IDENTITY"),
    }
    fields = pixels(2, 2, b"\0\1\2\3", PatientName="A")
    # PresentationLUTShape comes before the pixel data, so the order of tags holds.
    assert read(made(fields, extra=added)).attributes == read(made(fields)).attributes
    inverse = {0x20500020: element(0x20500020, "CS", "INVERSE")}
    assert read(made(fields, extra=inverse)).attributes["PresentationLUTShape"] == "INVERSE"


def sequence(tag: int, *contents: bytes, syntax: str = EXPLICIT) -> bytes:
    assert syntax == EXPLICIT
    return element(tag, "SQ", b"".join(map(item, contents)))


def test_anatomy_and_ultrasound_regions_are_lines() -> None:
    anatomy = sequence(
        0x00082218, element(0x00080100, "SH", "T-28000") + element(0x00080102, "SH", "SRT") + element(0x00080104, "LO", "Lung")
    )
    assert attributes(anatomy) == {"AnatomicRegionSequence": "0.CodeValue=T-28000\n0.CodingSchemeDesignator=SRT"}
    region = element(0x00186012, "US", 1) + element(0x00186018, "UL", struct.pack("<I", 70000))
    region += element(0x0018602C, "FD", struct.pack("<d", 1e-5))
    lines = ["0.RegionSpatialFormat=1", "0.RegionLocationMinX0=70000", "0.PhysicalDeltaX=0.00001", "1.RegionSpatialFormat=2"]
    both = sequence(0x00186011, region, element(0x00186012, "US", 2))
    assert attributes(both) == {"SequenceOfUltrasoundRegions": "\n".join(lines)}


def test_functional_groups_are_lines_without_rescale_defaults() -> None:
    rescale = element(0x00281052, "DS", "-1024") + element(0x00281053, "DS", "1") + element(0x00281054, "LO", "HU")
    shared = element(0x52009229, "SQ", item(element(0x00289145, "SQ", item(rescale))))
    position = element(0x00209113, "SQ", item(element(0x00200032, "DS", "1\\2.0\\3")))
    per_frame = element(0x52009230, "SQ", item(position) + item(b""))
    first = element(0x00080018, "UI", "1.2.3")
    assert attributes(first, shared, per_frame)["FunctionalGroups"].split("\n") == [
        "shared.PixelValueTransformationSequence.RescaleIntercept=-1024",
        "shared.PixelValueTransformationSequence.RescaleType=HU",
        "0.PlanePositionSequence.ImagePositionPatient=1\\2\\3",
    ]
    with pytest.raises(Unreadable, match="2 items in one functional group"):
        attributes(first, element(0x52009230, "SQ", item(element(0x00209113, "SQ", item(b"") + item(b"")))))
    with pytest.raises(Unreadable, match="2 items, not one"):
        attributes(first, element(0x52009229, "SQ", item(b"") + item(b"")))


def lut(descriptor: bytes, entries: bytes, vr: str = "OW", signed: int = 0, syntax: str = EXPLICIT) -> str:
    content = element(0x00283002, "US", descriptor, syntax=syntax) + element(0x00283006, vr, entries, syntax=syntax)
    order = ">" if syntax == BIG else "<"
    wrapped = struct.pack(order + "HHI", 0xFFFE, 0xE000, len(content)) + content
    return attributes(
        element(0x00280103, "US", signed, syntax=syntax), element(0x00283000, "SQ", wrapped, syntax=syntax), syntax=syntax
    )["ModalityLUTSequence"]


def test_a_modality_lut_reads_the_same_in_every_encoding() -> None:
    expected = lut(struct.pack("<3H", 2, 65535, 16), struct.pack("<2H", 1, 258))
    assert expected.startswith("0.LUTDescriptor=2\\65535\\16\n0.LUTData=sha256:")
    assert expected.endswith(hashlib.sha256(struct.pack("<2H", 1, 258)).hexdigest())
    assert lut(struct.pack("<3H", 2, 65535, 16), struct.pack("<2H", 1, 258), syntax=IMPLICIT) == expected
    assert lut(struct.pack(">3H", 2, 65535, 16), struct.pack(">2H", 1, 258), syntax=BIG) == expected
    assert "2\\-1\\16" in lut(struct.pack("<3H", 2, 65535, 16), struct.pack("<2H", 1, 258), signed=1)
    narrow = lut(struct.pack("<3H", 2, 0, 8), b"\1\2")
    assert narrow == lut(struct.pack("<3H", 2, 0, 8), struct.pack("<2H", 1, 2))
    assert narrow == lut(struct.pack(">3H", 2, 0, 8), b"\2\1", syntax=BIG)
    with pytest.raises(Unreadable, match="a LUT of 6 bytes"):
        lut(struct.pack("<3H", 2, 0, 16), bytes(6))


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (element(0x00186011, "LO", "x"), "a sequence has VR 'LO'"),
        (element(0x00186011, "SQ", b"\1\2\3\4\5\6\7\0"), "where an item is expected"),
        (element(0x00186011, "SQ", item(element(0x00186012, "US", b"\1\2\3\4\5\6")[:-1])), "says 6 bytes"),
        (element(0x00186011, "SQ", item(element(0x0018602C, "FD", b"\1\2\3\4\5\6"))), "no whole number"),
        (element(0x00082218, "SQ", item(element(0x00080100, "SH", "a\nb "))), "line feed"),
        (element(0x00283000, "SQ", item(element(0x00283006, "OW", bytes(4)))), "without descriptor"),
    ],
)
def test_a_malformed_bound_sequence_is_unreadable(broken: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        attributes(broken)


def test_a_bound_sequence_written_as_un_reads_the_same() -> None:
    content = element(0x00080100, "SH", "T-28000", syntax=IMPLICIT)
    for undefined in (False, True):
        unknown = (
            element(0x00082218, "UN", item(content))
            if not undefined
            else (
                element(0x00082218, "UN", b"", length=0xFFFFFFFF) + item(content, undefined=True) + b"\xfe\xff\xdd\xe0\0\0\0\0"
            )
        )
        assert attributes(unknown) == {"AnatomicRegionSequence": "0.CodeValue=T-28000"}
