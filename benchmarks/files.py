"""Image files to measure with: a realistic header from pydicom's own CT, and distinct pixels by seed."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.tag import Tag
from pydicom.uid import UID

Modality = Literal["CT", "CR"]
ROOT_UID = "1.2.826.0.1.3680043.8.498"
IMAGES_PER_STUDY: dict[Modality, int] = {"CT": 512, "CR": 2}
EDGE: dict[Modality, int] = {"CT": 512, "CR": 2140}
_CLASSES: dict[Modality, str] = {"CT": "1.2.840.10008.5.1.4.1.1.2", "CR": "1.2.840.10008.5.1.4.1.1.1"}


@dataclass(frozen=True)
class ImageFile:
    """One file on disk; bytes [start, end) are its pixel values."""

    path: Path
    start: int
    end: int


def make(folder: Path, modality: Modality, count: int, edge: int | None = None) -> list[ImageFile]:
    """`count` files of `edge` x `edge` pixels, uncompressed: CT with 16 bits signed, CR with 12 bits of 16 unsigned.

    The header has more than 250 elements. Files differ in pixels, instance and study; the same arguments give the same files.
    """
    edge = edge or EDGE[modality]
    folder.mkdir(parents=True)
    return [_make_one(folder / f"{index:05}.dcm", modality, index, edge) for index in range(count)]


def _make_one(path: Path, modality: Modality, index: int, edge: int) -> ImageFile:
    dataset = dcmread(str(get_testdata_file("CT_small.dcm")))
    study = index // IMAGES_PER_STUDY[modality]
    code = {"CT": 1, "CR": 2}[modality]
    dataset.SOPClassUID = UID(_CLASSES[modality])
    dataset.Modality = modality
    dataset.StudyInstanceUID = UID(f"{ROOT_UID}.{code}.{study}")
    dataset.SeriesInstanceUID = UID(f"{ROOT_UID}.{code}.{study}.1")
    dataset.SOPInstanceUID = UID(f"{ROOT_UID}.{code}.{study}.1.{index}")
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PatientID = f"BENCH-{study}"
    dataset.InstanceNumber = index + 1
    dataset.Rows = dataset.Columns = edge
    dataset.BitsAllocated = 16
    dataset.BitsStored, dataset.PixelRepresentation = (16, 1) if modality == "CT" else (12, 0)
    dataset.HighBit = dataset.BitsStored - 1
    if "DataSetTrailingPadding" in dataset:
        del dataset.DataSetTrailingPadding
    dataset.PixelData = _pixels(modality, index, edge).tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return ImageFile(path, *_pixel_range(path, dataset))


def _pixels(modality: Modality, seed: int, edge: int) -> np.ndarray[Any, np.dtype[Any]]:
    """A gradient with noise on it, (edge, edge), little endian."""
    random = np.random.default_rng((seed, edge))
    slope = np.linspace(-1000, 2000, edge) if modality == "CT" else np.linspace(200, 3800, edge)
    noise = random.integers(-100, 100, (edge, edge), dtype=np.int16)
    return (slope.astype(np.int16)[np.newaxis, :] + noise).astype("<i2")


def _pixel_range(path: Path, dataset: Dataset) -> tuple[int, int]:
    data = path.read_bytes()
    length = len(dataset.PixelData)
    head = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, length)
    start = data.rfind(head, 0, len(data) - length) + len(head)
    if start < len(head) or start + length != len(data):
        raise ValueError(f"{path}: {Tag(0x7FE00010)} is not the last element")
    return start, start + length
