"""Files on their way to the detector and back. The detector here is a simulator, told what to say by an image's brightness."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from ledger.core.errors import FixInput
from ledger.wiring import opinion
from ledger.wiring.opinion import Images, Opinion, Opinions, WithoutPixels, out_of_scope
from tests.simulators.detector import MODEL, Brightness

SCHEMA = json.loads((Path(__file__).parents[2] / "ledger/cli/detect.schema.json").read_text())


def opinions_of(detector: Brightness, heatmaps: Path | None = None) -> Opinions:
    return Opinions(detector, heatmaps)  # type: ignore[arg-type]


def everything(detector: Brightness, *paths: Path, heatmaps: Path | None = None) -> list[Opinion]:
    opinions = opinions_of(detector, heatmaps)
    return [opinions.of(looked) for looked in Images(str(path) for path in paths)]


def picture(file: Path, value: int = 40, size: tuple[int, int] = (130, 110)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    grain = np.random.default_rng(1).integers(value, value + 40, size[::-1], np.uint8)
    Image.fromarray(grain).save(file)
    return file


def dicom(name: str, folder: Path, **changes: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = Path(shutil.copyfile(str(get_testdata_file(name, download=False)), folder / name))
    if changes:
        dataset = pydicom.dcmread(file)
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        dataset.save_as(file)
    return file


def test_a_folder_gives_its_objects_and_pictures_and_counts_the_rest(tmp_path: Path) -> None:
    dicom("CT_small.dcm", tmp_path / "b", Modality="DX")
    for name in ("a.png", "c/d.jpg", "c/e.TIF", "f.webp", "old.png.heatmap.png"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "wrong.png").write_text("no picture")
    images = Images([str(tmp_path)])
    found = [Path(looked.path).relative_to(tmp_path).as_posix() for looked in images]
    assert found == ["b/CT_small.dcm", "a.png", "f.webp", "c/d.jpg", "c/e.TIF"]
    assert images.skipped == 3


def test_stored_values_reach_the_detector_untouched(tmp_path: Path) -> None:
    file = dicom("RG1_UNCR.dcm", tmp_path)
    expected = pydicom.dcmread(file).pixel_array
    detector = Brightness()
    (given,) = everything(detector, file)
    pixels, inverted, bits = detector.given[0]
    assert np.array_equal(pixels, expected)
    assert (inverted, bits) == (True, 16)
    assert given.assessment.model == MODEL
    deep = tmp_path / "deep.png"
    Image.fromarray((expected[:200, :200]).astype(np.uint16)).save(deep)
    everything(detector, deep)
    assert np.array_equal(detector.given[1][0], expected[:200, :200])
    assert detector.given[1][1:] == (False, 16)


@pytest.mark.parametrize("name", ["RG3_J2KI.dcm", "RG3_J2KR.dcm", "RG3_UNCR.dcm"])
def test_compressed_objects_are_decoded(tmp_path: Path, name: str) -> None:
    file = dicom(name, tmp_path, BodyPartExamined="CHEST")
    detector = Brightness()
    everything(detector, file)
    assert np.array_equal(detector.given[0][0], pydicom.dcmread(file).pixel_array)


def test_a_rescale_changes_nothing_that_the_detector_sees(tmp_path: Path) -> None:
    plain = dicom("CT_small.dcm", tmp_path / "plain", Modality="DX", RescaleSlope=1, RescaleIntercept=0)
    scaled = dicom("CT_small.dcm", tmp_path / "scaled", Modality="DX", RescaleSlope=7, RescaleIntercept=-500)
    detector = Brightness()
    everything(detector, plain, scaled)
    assert np.array_equal(detector.given[0][0], detector.given[1][0])


@pytest.mark.parametrize("name", ["SC_rgb.dcm", "SC_rgb_dcmtk_+eb+cy+n1.dcm", "SC_ybr_full_uncompressed.dcm"])
def test_colour_objects_come_as_red_green_and_blue(tmp_path: Path, name: str) -> None:
    detector = Brightness()
    file = dicom(name, tmp_path)
    everything(detector, file)
    expected = pydicom.dcmread(file).pixel_array
    assert detector.given[0][0].shape == expected.shape == (100, 100, 3)
    assert np.abs(detector.given[0][0].astype(int) - expected).max() <= 2


@pytest.mark.parametrize(
    ("modality", "part", "excluded"),
    [
        ("CR", "CHEST", False),
        ("DX", "", False),
        ("dx", "PORTABLE CHEST", False),
        ("", "UNKNOWN", False),
        ("CT", "CHEST", True),
        ("MR", "", True),
        ("MG", "", True),
        ("CR", "HAND", True),
        ("DX", "LSPINE", True),
        ("CR", "CHEST ABDOMEN", False),
    ],
)
def test_a_header_can_put_an_image_out_of_scope_and_no_more(modality: str, part: str, excluded: bool) -> None:
    reason = out_of_scope({"Modality": modality or None, "BodyPartExamined": part or None})
    assert (reason is not None) is excluded


def test_an_excluded_object_is_not_shown_to_the_detector(tmp_path: Path) -> None:
    detector = Brightness()
    (given,) = everything(detector, dicom("CT_small.dcm", tmp_path))
    assert given.assessment.word == "OUT_OF_SCOPE"
    assert given.exit_code == 0
    assert "CT" in given.assessment.reasons[0].text
    assert not detector.given


def test_what_cannot_be_read_is_not_run_and_says_why(tmp_path: Path) -> None:
    half = picture(tmp_path / "half.png")
    half.write_bytes(half.read_bytes()[:400])
    text = tmp_path / "text.dcm"
    text.write_text("nothing")
    cut = dicom("RG3_UNCR.dcm", tmp_path, BodyPartExamined="CHEST")
    cut.write_bytes(cut.read_bytes()[:-5000])
    empty = tmp_path / "empty.jpg"
    empty.touch()
    given = everything(Brightness(), half, text, cut, empty, tmp_path / "gone.png")
    assert [(one.assessment.word, one.exit_code) for one in given] == [("NOT_RUN", 7)] * 5
    assert all(len(one.assessment.reasons[0].text) > 5 for one in given)


def test_what_the_detector_refuses_is_not_run(tmp_path: Path) -> None:
    file = picture(tmp_path / "a.png")
    for error in (ValueError("no picture"), MemoryError()):
        (given,) = everything(Brightness(error), file)
        assert given.assessment.word == "NOT_RUN"


def test_an_object_without_pixels_is_left_out_unless_it_was_named(tmp_path: Path) -> None:
    report = dicom("test-SR.dcm", tmp_path)
    (given,) = everything(Brightness(), report)
    assert given.assessment.word == "NOT_RUN"
    with pytest.raises(WithoutPixels):
        everything(Brightness(), tmp_path)


def test_the_picture_of_where_is_written_and_names_stay_apart(tmp_path: Path) -> None:
    files = [picture(tmp_path / "one" / "a.png", 180), picture(tmp_path / "two" / "a.png", 180, (400, 130))]
    given = everything(Brightness(), *files, heatmaps=tmp_path / "where")
    names = [one.heatmap.name for one in given if one.heatmap is not None]
    assert names == ["a.png.heatmap.png", "a.png-2.heatmap.png"]
    assert Image.open(tmp_path / "where" / names[1]).size == (2 * 400 + 8, 130)
    # Pictures of where are no images to look at when they lie in the same folder.
    assert len(everything(Brightness(), tmp_path)) == 2


def test_a_folder_that_cannot_be_written_is_the_users_to_mend(tmp_path: Path) -> None:
    file = picture(tmp_path / "a.png")
    with pytest.raises(FixInput, match="--heatmap"):
        everything(Brightness(), file, heatmaps=file / "below")


def test_findings_stand_beside_the_opinion(tmp_path: Path) -> None:
    plain = picture(tmp_path / "plain.png")
    with Image.open(plain) as opened:
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_text("parameters", "a chest radiograph\nSteps: 30, Sampler: Euler")
        opened.save(tmp_path / "noted.png", pnginfo=info)
    first, second = everything(Brightness(), plain, tmp_path / "noted.png")
    assert [finding.kind for finding in second.findings] == ["generator_note"]
    assert not first.findings
    assert first.assessment.synthetic_probability == second.assessment.synthetic_probability


def test_the_json_keeps_its_schema(tmp_path: Path) -> None:
    files = [picture(tmp_path / "a.png", 180), picture(tmp_path / "b.jpg"), dicom("CT_small.dcm", tmp_path), tmp_path / "gone"]
    given = everything(Brightness(), *files, heatmaps=tmp_path / "where")
    rows = [one.as_json() for one in given]
    jsonschema.validate({"exit_code": 8, "images": rows, "skipped": 0, "without_pixels": 0}, SCHEMA)
    assert [row["assessment"] for row in rows] == ["LIKELY_SYNTHETIC", "NO_SIGN_OF_SYNTHESIS", "OUT_OF_SCOPE", "NOT_RUN"]


def test_without_its_libraries_the_detector_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "detector.inference", None)
    with pytest.raises(opinion.NotInstalled, match=r"scanseal\[detector\]"):
        Opinions.load()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read_is_not_run(tmp_path: Path) -> None:
    file = picture(tmp_path / "a.png")
    file.chmod(0)
    (given,) = everything(Brightness(), file)
    assert given.assessment.word == "NOT_RUN"
