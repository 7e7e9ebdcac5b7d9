"""No patient is in two splits, and the splits are the ones that every figure was made with."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from detector import splits
from detector.splits import SHARES, SPLITS, DataMissing, data_folder, radiographs, split_rows


def test_no_patient_is_in_two_splits():
    of = {split: {image.patient for image in radiographs([split])} for split in SPLITS}
    assert not of["train"] & of["calibrate"]
    assert not of["train"] & of["test"]
    assert not of["calibrate"] & of["test"]


@pytest.mark.parametrize("source", ["nih", "kermany"])
def test_each_source_is_in_each_split_by_its_share(source):
    counts = Counter(image.split for image in radiographs(source=source))
    for split, share in zip(SPLITS, SHARES, strict=True):
        assert counts[split] / counts.total() == pytest.approx(share, abs=0.01)


def test_a_changed_split_is_refused(tmp_path, monkeypatch):
    changed = tmp_path / "splits.csv"
    content = Path(splits.__file__).with_name("splits.csv").read_text()
    changed.write_text(content.replace("train", "test", 1))
    monkeypatch.setattr(splits, "_FILE", changed)
    with pytest.raises(ValueError, match="changed"):
        radiographs()


def test_the_splits_are_made_of_the_patients_names_alone(radiograph_folder):
    text = split_rows(radiograph_folder / "cxr" / "manifest.csv")
    assert text == Path(splits.__file__).with_name("splits.csv").read_text()


def test_another_file_under_a_listed_name_is_refused(tmp_path, radiograph_folder):
    image = radiographs(["test"])[0]
    path = tmp_path / "cxr" / image.path
    path.parent.mkdir(parents=True)
    path.write_bytes((radiograph_folder / "cxr" / image.path).read_bytes() + b"\0")
    with pytest.raises(DataMissing, match="not the file"):
        image.pixels(tmp_path)


def test_data_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(DataMissing, match="SCANSEAL_DATA"):
        data_folder(tmp_path)
