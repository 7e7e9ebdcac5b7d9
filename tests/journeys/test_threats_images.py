"""The threats of DESIGN §10 to the image itself: a sealed picture, or what is bound to it, was changed. The table of all
threats is in test_threats."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import JPEGLSLossless, RLELossless

from tests.journeys.conftest import Site

Change = Callable[[pydicom.Dataset], object]


def pixels(change: Callable[[np.ndarray], np.ndarray], *, syntax: str | None = None) -> Change:
    def apply(dataset: pydicom.Dataset) -> None:
        changed = change(dataset.pixel_array.copy())
        dataset.Rows, dataset.Columns = changed.shape
        dataset.PixelData = changed.tobytes()
        if syntax:
            dataset.compress(syntax, generate_instance_uid=False)

    return apply


def lesion(frame: np.ndarray) -> np.ndarray:
    frame[60:64, 60:64] += 300
    return frame


def burnt(frame: np.ndarray) -> np.ndarray:
    frame[:8, :40] = frame.max()
    return frame


PICTURES: dict[str, tuple[Change, str]] = {
    "lesion": (pixels(lesion), "ALTERED"),
    "burn-in": (pixels(burnt), "ALTERED"),
    "crop": (pixels(lambda frame: frame[16:112, 16:112]), "ALTERED"),
    "mirrored": (pixels(lambda frame: frame[:, ::-1]), "ALTERED"),
    "turned": (pixels(lambda frame: frame.T), "ALTERED"),
    "lesion under RLE": (pixels(lesion, syntax=RLELossless), "ALTERED"),
    "lesion under JPEG-LS": (pixels(lesion, syntax=JPEGLSLossless), "ALTERED"),
    "transcoded": (pixels(lambda frame: frame, syntax=JPEGLSLossless), "AUTHENTIC"),
    "inverted": (lambda dataset: setattr(dataset, "PhotometricInterpretation", "MONOCHROME1"), "ALTERED"),
    "unsigned": (lambda dataset: setattr(dataset, "PixelRepresentation", 0), "ALTERED"),
}
ATTRIBUTES: dict[str, object] = {
    "RescaleSlope": "2",
    "RescaleIntercept": "-1000",
    "PixelSpacing": ["1.3", "1.3"],
    "ImageOrientationPatient": ["-1", "0", "0", "0", "1", "0"],
    "ImagePositionPatient": ["0", "0", "0"],
    "SliceThickness": "1",
    "Laterality": "R",
    "StudyDate": "20190101",
    "AccessionNumber": "7",
}


def test_a_changed_picture_is_altered_however_it_is_stored(site: Site, tmp_path: Path) -> None:
    for name, (change, _) in PICTURES.items():
        dataset = pydicom.dcmread(site.folder / "made/CT_small.dcm")
        change(dataset)
        dataset.save_as(tmp_path / f"{name}.dcm")
    found = site.verdicts(tmp_path, expect=1)
    assert {Path(name).stem: verdict for name, verdict in found.items()} == {name: v for name, (_, v) in PICTURES.items()}


def test_each_changed_attribute_is_named(site: Site, tmp_path: Path) -> None:
    for keyword, value in ATTRIBUTES.items():
        dataset = pydicom.dcmread(site.folder / "made/CT_small.dcm")
        setattr(dataset, keyword, value)
        dataset.save_as(tmp_path / f"{keyword}.dcm")
    images = site.json("verify", tmp_path, "--offline", expect=1)["images"]
    assert {Path(one["path"]).stem: (one["verdict"], one["differing"]) for one in images} == {
        keyword: ("MISMATCH", [keyword]) for keyword in ATTRIBUTES
    }
