"""Values as a patient has them, images that carry them everywhere, and a search that finds them in whatever came out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from io import BytesIO
from pathlib import Path
from urllib.parse import quote, unquote

import pydicom
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

_LATIN = "abcdefghijklmnopqrstuvwyzäéèñöøüß"
_KANJI = "日本山田佐藤鈴木高橋"
_WORD = st.text(_LATIN, min_size=4, max_size=9).map(lambda text: f"Xq{text}")
_MARK = b"MARKMARKMARKMARK"
"""Stands in a value of 16 bytes until the file is made."""


@dataclass(frozen=True)
class Patient:
    """Who must not be found again. `ae_title`, `uid_root` and `file_name` are made of the same values, as sites do."""

    family: str
    given: str
    kanji: str
    number: str
    birth: str
    accession: str

    @property
    def name(self) -> str:
        return f"{self.family}^{self.given}={self.kanji}^{self.kanji[::-1]}"

    @property
    def ae_title(self) -> str:
        return f"A{self.number[1:]}".encode("ascii", "replace").decode()[:16]

    @property
    def uid_root(self) -> str:
        return f"1.2.826.0.1.{int(self.number[2:])}.{self.birth}"

    @property
    def file_name(self) -> str:
        return f"{self.family}_{self.given} {self.kanji} {self.number} {self.birth}.dcm"

    def needles(self) -> set[str]:
        """What must be found nowhere, whole or in part."""
        digits = self.number[2:]
        return {self.family, self.given, self.kanji, self.number, digits, self.birth, self.accession, self.accession[1:]}


PATIENTS = st.builds(
    Patient,
    _WORD,
    _WORD,
    st.text(_KANJI, min_size=3, max_size=4),
    st.integers(10**9, 10**10 - 1).map(lambda number: f"PQ{number}"),
    st.dates(date(1920, 1, 1), date(1999, 12, 31)).map(lambda day: day.strftime("%Y%m%d")),
    st.integers(10**9, 10**10 - 1).map(lambda number: f"Z{number}"),
)


def image(patient: Patient, maker: tuple[str, str, str], number: int = 1, rows: int = 16) -> Dataset:
    """An image of a device, with the patient in every place that an image has for one, and in some that it has not."""
    image = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
    image.remove_private_tags()
    del image.DataSetTrailingPadding
    image.SpecificCharacterSet = "ISO_IR 192"
    image.Manufacturer, image.ManufacturerModelName, image.DeviceSerialNumber = maker
    image.PatientName, image.PatientID, image.PatientBirthDate = patient.name, patient.number, patient.birth
    image.ReferringPhysicianName = image.OperatorsName = patient.name
    image.AccessionNumber = image.StudyID = patient.accession
    image.StudyDate = image.SeriesDate = image.AcquisitionDate = patient.birth
    image.StudyDescription = image.ImageComments = f"{patient.name} {patient.number}"
    image.InstitutionName = image.StationName = patient.family
    image.StudyInstanceUID = patient.uid_root
    image.SeriesInstanceUID, image.SOPInstanceUID = f"{patient.uid_root}.1", f"{patient.uid_root}.1.{number}"
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    block = image.private_block(0x0019, patient.family, create=True)
    block.add_new(0x01, "LO", patient.number)
    image.RescaleSlope = "1"
    image.Rows = image.Columns = rows
    image.PixelData = number.to_bytes(2, "little") * rows * rows
    return image


def written(image: Dataset) -> bytes:
    target = BytesIO()
    image.save_as(target, enforce_file_format=True)
    return target.getvalue()


def _cut(patient: Patient, image: Dataset) -> bytes:
    data = written(image)
    return data[: data.index(patient.number.encode()) + 4]


def _wrong_length(patient: Patient, image: Dataset) -> bytes:
    """The next element begins in the middle of a name, whose bytes are its tag."""
    data = bytearray(written(image))
    at = data.index(b"\x10\x00\x10\x00PN") + 6
    data[at : at + 2] = (int.from_bytes(data[at : at + 2], "little") - 12).to_bytes(2, "little")
    return bytes(data)


def _value(keyword: str) -> Callable[[Patient, Dataset], bytes]:
    """An image in which an element has what belongs to the patient's number, as it is."""

    def made(patient: Patient, image: Dataset) -> bytes:
        setattr(image, keyword, _MARK.decode())
        return written(image).replace(_MARK, f"{patient.number}{patient.family}"[:16].ljust(16).encode("latin-1", "replace"))

    return made


def _uid(keyword: str) -> Callable[[Patient, Dataset], bytes]:
    def made(patient: Patient, image: Dataset) -> bytes:
        known, wrong = generate_uid(), f"{patient.number}^{patient.accession}"
        setattr(image.file_meta if keyword in ("TransferSyntaxUID", "MediaStorageSOPClassUID") else image, keyword, known)
        if keyword == "TransferSyntaxUID":
            image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            known = ExplicitVRLittleEndian
        length = len(known) + len(known) % 2
        return written(image).replace(known.encode().ljust(length, b"\0"), wrong.encode()[:length].ljust(length, b"\0"))

    return made


def _character_set(patient: Patient, image: Dataset) -> bytes:
    return written(image).replace(b"ISO_IR 192", patient.number[:10].encode())


def _private_class(patient: Patient, image: Dataset) -> bytes:
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = f"{patient.uid_root}.3"
    return written(image)


def _no_preamble(patient: Patient, image: Dataset) -> bytes:
    return written(image)[132:]


def _not_dicom(patient: Patient, image: Dataset) -> bytes:
    return f"{patient.name};{patient.number};{patient.birth}\n".encode() * 20


MALFORMED: Mapping[str, Callable[[Patient, Dataset], bytes]] = {
    "cut off in the patient's number": _cut,
    "a name of the wrong length": _wrong_length,
    "a photometric interpretation": _value("PhotometricInterpretation"),
    "a laterality": _value("ImageLaterality"),
    "a character set": _character_set,
    "an instance UID": _uid("SOPInstanceUID"),
    "a transfer syntax": _uid("TransferSyntaxUID"),
    "a storage class": _uid("MediaStorageSOPClassUID"),
    "a storage class of their own": _private_class,
    "no preamble": _no_preamble,
    "a table of patients": _not_dicom,
}
"""What is wrong -> a file in which it is, with the patient's values in the wrong place."""
STORABLE = CTImageStorage


def leaks(patients: Iterable[Patient], outputs: Mapping[str, bytes]) -> list[str]:
    """Where a patient is found in what came out: in any character set that DICOM has for it, escaped or not, in any case."""
    found = []
    for where, data in outputs.items():
        texts = _readings(data)
        for patient in patients:
            for needle in patient.needles():
                encoded = {needle.encode(code, "ignore").lower() for code in ("utf-8", "latin-1", "iso2022_jp", "utf-16-le")}
                if any(len(one) > 4 and one in data.lower() for one in encoded):
                    found.append(f"{where}: {needle}")
                elif any(needle.casefold() in text for text in texts):
                    found.append(f"{where}: {needle}, escaped")
    texts = {where: data.decode("utf-8", "replace") for where, data in outputs.items()}
    values = [value.encode() for patient in patients for value in (patient.name, patient.number, patient.uid_root)]
    for where, text in texts.items():
        found += [
            f"{where}: {tag[0]} is part of a value" for tag in _TAG.finditer(text) if any(_octets(tag) in one for one in values)
        ]
    return sorted(set(found))


_TAG = re.compile(r"\(([0-9a-f]{4}),([0-9a-f]{4})\)")


def _octets(tag: re.Match[str]) -> bytes:
    """Four bytes that were taken for a tag."""
    return b"".join(int(part, 16).to_bytes(2, "little") for part in tag.groups())


def _readings(data: bytes) -> list[str]:
    text = data.decode("utf-8", "replace")
    escapes = re.sub(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})", lambda one: chr(int(one[1] or one[2], 16)), text)
    octets = re.sub(rb"\\x([0-9a-fA-F]{2})", lambda one: bytes((int(one[1], 16),)), data).decode("utf-8", "replace")
    return [reading.casefold() for reading in (text, escapes, octets, unquote(text))]


def control(patient: Patient) -> dict[str, bytes]:
    """Outputs in which the search must find the patient: each way that one has come out of programs like this."""
    return {
        "plain": f"could not read {patient.file_name}".encode(),
        "json": ascii(patient.family).encode(),
        "a list of bytes": repr(patient.kanji.encode()).encode(),
        "address": f"/instances/{quote(patient.given)}".encode(),
        "UID": f"study {patient.uid_root} refused".encode(),
        "Japanese": f"name {patient.kanji}".encode("iso2022_jp"),
        "a tag": b"(%02x%02x,%02x%02x) follows" % tuple(patient.number.encode()[at] for at in (3, 2, 5, 4)),
        "capitals": patient.number.lower().encode(),
    }


def folder_names(folder: Path, without: tuple[str, ...]) -> bytes:
    """The names of all files in a folder, but those below `without`."""
    names = (str(path.relative_to(folder)) for path in sorted(folder.rglob("*")))
    return "\n".join(name for name in names if not name.startswith(without)).encode("utf-8", "surrogateescape")
