"""The real radiographs, and which patients the detector learns from, is calibrated on, and is judged by.

`splits.csv` is checked in: a row for each image (path below the data folder's `cxr/`, source, patient, kind, split, SHA-256 of
the file). No patient is in two splits. Its own hash stands here, so that a changed split is noticed; each image's hash is
compared when it is read.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Split = Literal["train", "calibrate", "test"]
SPLITS: tuple[Split, ...] = ("train", "calibrate", "test")
SHARES = (0.4, 0.4, 0.2)
SPLITS_SHA256 = "f83d312e97d57b24a995d39e36d4ee40ba147b532dfc6a58889febf3ee2a809c"
_FILE = Path(__file__).with_name("splits.csv")
_COLUMNS = ("path", "source", "patient", "kind", "split", "sha256")


class DataMissing(Exception):
    """The folder with the real radiographs is not here, or isn't what the splits name: set SCANSEAL_DATA to it."""


@dataclass(frozen=True)
class Radiograph:
    """One real image. kind: `original` (as its source published it) or `512` (grey, short side 512)."""

    path: str
    source: str
    patient: str
    kind: str
    split: Split
    sha256: str

    def pixels(self, data: Path) -> NDArray[np.uint8]:
        """Its grey pixels, (H, W); raises DataMissing if the file isn't there or isn't the one that was listed."""
        try:
            content = (data / "cxr" / self.path).read_bytes()
        except OSError as error:
            raise DataMissing(f"{self.path}: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise DataMissing(f"{self.path} is not the file that detector/splits.csv lists")
        return np.asarray(Image.open(io.BytesIO(content)).convert("L"))


def data_folder(given: Path | None = None) -> Path:
    """The folder with the shared data: the one given, SCANSEAL_DATA, or `shared/data` beside the checkout."""
    named = given or os.environ.get("SCANSEAL_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "cxr" / "manifest.csv").is_file():
        raise DataMissing(f"no radiographs in {folder} (cxr/manifest.csv): set SCANSEAL_DATA to the folder that has them")
    return folder


def radiographs(
    splits: Sequence[Split] = SPLITS, *, source: str | None = None, kind: str | None = None
) -> tuple[Radiograph, ...]:
    """The images of some splits, in the order of the file. Raises ValueError if the file isn't the one checked in."""
    content = _FILE.read_bytes()
    if hashlib.sha256(content).hexdigest() != SPLITS_SHA256:
        raise ValueError("detector/splits.csv was changed: the splits are part of every published figure")
    rows = csv.DictReader(io.StringIO(content.decode()))
    listed = (Radiograph(**row) for row in rows)  # type: ignore[arg-type]
    return tuple(
        image for image in listed if image.split in splits and source in (None, image.source) and kind in (None, image.kind)
    )


def split_rows(manifest: Path) -> str:
    """The text of `splits.csv` for a manifest: within each source and kind, patients in the order of their hash."""
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = {row["path"]: "512" if "_512/" in row["path"] else "original" for row in rows}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for group in sorted({(row["source"], kinds[row["path"]]) for row in rows}):
        members = [row for row in rows if (row["source"], kinds[row["path"]]) == group]
        members.sort(key=lambda row: hashlib.sha256(row["patient"].encode()).digest())
        bounds = np.cumsum([round(share * len(members)) for share in SHARES[:-1]])
        for number, row in enumerate(members):
            split = SPLITS[int(np.searchsorted(bounds, number, side="right"))]
            writer.writerow((row["path"], row["source"], row["patient"], group[1], split, row["sha256"]))
    return text.getvalue()
