"""Lossless roads through other people's tools: a few of those in scripts/survey_transcoding and docs/transcoding.md."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pydicom
import pytest
from corpus import ROOT, packaged, shared

from ledger.core.errors import Refused, Unreadable
from ledger.dicom import read


@pytest.fixture(scope="module")
def survey() -> ModuleType:
    """The survey tool. Without DCMTK or GDCM: an error in CI, a named skip elsewhere."""
    missing = [tool for tool in ("dcmconv", "gdcmconv") if shutil.which(tool) is None]
    if missing and os.environ.get("CI") == "true":
        raise RuntimeError(f"missing in CI: {missing}")
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    loader = importlib.machinery.SourceFileLoader("survey_transcoding", str(ROOT / "scripts" / "survey_transcoding"))
    spec = importlib.util.spec_from_loader("survey_transcoding", loader)
    if spec is None:
        raise RuntimeError("scripts/survey_transcoding can't be loaded")
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["survey_transcoding"] = module
    loader.exec_module(module)
    return module


ROADS = {
    "MR_small.dcm": 23,
    "MR_small_implicit.dcm": 23,
    "SC_rgb.dcm": 22,
    "examples_palette.dcm": 20,
    "emri_small_RLE.dcm": 12,
    "693_J2KR.dcm": 9,
    "SC_rgb_small_odd.dcm": 17,
}
"""Files, and the least number of roads that the tools make for each."""


@pytest.mark.parametrize("name", ROADS)
def test_a_real_file_keeps_its_digest_and_attributes_down_every_lossless_road(survey: ModuleType, name: str) -> None:
    outcomes = [outcome for outcome in survey.survey_file(packaged()[name]) if outcome.result != "not made"]
    assert len(outcomes) >= ROADS[name]
    assert {outcome.road: outcome for outcome in outcomes if outcome.result != "survived" or outcome.attributes} == {}


def test_wg04_files_keep_their_digest_down_every_road(survey: ModuleType) -> None:
    for name in ("CT2_RLE.dcm", "VL3_J2KR.dcm"):
        outcomes = [o for o in survey.survey_file(shared() / "wg04" / name) if o.result != "not made"]
        assert len(outcomes) >= 9
        assert {outcome.result for outcome in outcomes} == {"survived"}


def test_a_tool_that_changes_pixels_or_colours_is_caught(survey: ModuleType) -> None:
    found = {o.road: o for o in survey.survey_file(packaged()["SC_ybr_full_uncompressed.dcm"])}
    assert found["dcmcjpeg +e1"].result == "survived"
    assert found["dcmcjpeg +e1, dcmdjpeg"].reason == "photometric 5 became 4"
    found = {o.road: o for o in survey.survey_file(packaged()["SC_rgb_rle_16bit.dcm"])}
    assert found["gdcmconv --raw"].reason == "samples differ"
    assert found["dcmdrle"].result == "survived"


STORAGE = {"dcmconv": ["dcmconv"], "dcmconv -g +e": ["dcmconv", "-g", "+e"], "gdcmconv": ["gdcmconv"], "pydicom": []}
"""Tools that read an object and write it again under the same transfer syntax."""


@pytest.mark.parametrize("tool", STORAGE)
def test_plain_storage_keeps_the_digest_of_every_file_that_px1_is_not_for(
    survey: ModuleType, tool: str, tmp_path: Path
) -> None:
    stored, kept = tmp_path / "stored.dcm", 0
    for path in (*packaged().values(), *sorted((shared() / "wg04").glob("*.dcm"))):
        try:
            image = read(path)
            profile = image.default_profile()
        except (Refused, Unreadable):
            continue
        if profile.startswith("px1"):
            continue
        if STORAGE[tool]:
            subprocess.run([*STORAGE[tool], str(path), str(stored)], check=True, capture_output=True)
        else:
            pydicom.dcmread(path, force=True).save_as(stored)
        assert read(stored).digest(profile).digest == image.digest(profile).digest, path.name
        kept += 1
    assert kept == 50


def test_a_lossy_file_is_not_surveyed_and_a_lossy_step_breaks_the_digest(survey: ModuleType, tmp_path: Path) -> None:
    assert survey.survey_file(packaged()["SC_rgb_jpeg_dcmtk.dcm"]) == []
    lossy = survey.walk(packaged()["SC_rgb.dcm"], [["dcmcjpeg", "+eb"], ["dcmdjpeg"]], tmp_path)
    assert read(lossy).digest("px1-sha256") != read(packaged()["SC_rgb.dcm"]).digest("px1-sha256")
