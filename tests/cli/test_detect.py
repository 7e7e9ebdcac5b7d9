"""`scanseal detect`, and the opinion that `scanseal verify` asks for. The detector is a simulator, told by brightness."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import jsonschema
import numpy as np
import pytest
from click.testing import Result as Done
from PIL import Image
from pydicom.data import get_testdata_file
from typer.testing import CliRunner

from ledger.cli.app import app
from ledger.cli.verifying import SecondOpinion
from ledger.core.errors import FixInput
from ledger.core.verdict import Token, Verdict, worst
from ledger.dicom import read
from ledger.wiring.images import Found
from ledger.wiring.opinion import NotInstalled
from ledger.wiring.verification import Result
from tests.simulators.detector import Brightness

SCHEMA = json.loads((Path(__file__).parents[2] / "ledger/cli/detect.schema.json").read_text())
VERIFY_SCHEMA = json.loads((Path(__file__).parents[2] / "ledger/cli/verify.schema.json").read_text())
Run = Callable[..., Done]


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> Brightness:
    simulated = Brightness()
    inference = ModuleType("detector.inference")
    inference.Detector = type("Detector", (), {"load": staticmethod(lambda: simulated)})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "detector.inference", inference)
    return simulated


@pytest.fixture
def run() -> Run:
    def command(*arguments: object, given: str = "") -> Done:
        return CliRunner().invoke(app, [str(one) for one in arguments], input=given)

    return command


def picture(file: Path, value: int) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(1).integers(value, value + 40, (110, 130), np.uint8)).save(file)
    return file


def test_of_many_images_the_worst_decides(tmp_path: Path, detector: Brightness, run: Run) -> None:
    dark, bright = picture(tmp_path / "dark.png", 20), picture(tmp_path / "bright.png", 190)
    broken = tmp_path / "broken.png"
    broken.write_bytes(dark.read_bytes()[:300])
    assert run("detect", dark).exit_code == 0
    assert run("detect", dark, broken).exit_code == 7
    assert run("detect", broken, bright, dark).exit_code == 8


def test_the_json_keeps_its_schema_and_says_all_that_the_issue_of_an_opinion_needs(
    tmp_path: Path, detector: Brightness, run: Run
) -> None:
    picture(tmp_path / "in" / "bright.png", 190)
    picture(tmp_path / "in" / "dark.jpg", 20)
    (tmp_path / "in" / "broken.tif").write_bytes(b"II*\0")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    shutil.copyfile(str(get_testdata_file("test-SR.dcm", download=False)), tmp_path / "in" / "report.dcm")
    done = run("detect", tmp_path / "in", "--heatmap", tmp_path / "where", "--json")
    answer = json.loads(done.stdout)
    jsonschema.validate(answer, SCHEMA)
    assert answer["exit_code"] == done.exit_code == 8
    images = {Path(image["path"]).name: image for image in answer["images"]}
    assert {name: image["assessment"] for name, image in images.items()} == {
        "bright.png": "LIKELY_SYNTHETIC",
        "dark.jpg": "NO_SIGN_OF_SYNTHESIS",
        "broken.tif": "NOT_RUN",
    }
    assert (answer["skipped"], answer["without_pixels"]) == (1, 1)
    assert 0 <= images["bright.png"]["synthetic_probability"] <= 1
    assert images["broken.tif"]["synthetic_probability"] is None
    assert images["broken.tif"]["reasons"][0]["text"]
    assert Path(images["bright.png"]["heatmap"]).parent == tmp_path / "where"
    assert Image.open(images["bright.png"]["heatmap"]).size == (268, 110)
    assert [finding["kind"] for finding in images["dark.jpg"]["findings"]] == ["lossy"]


def test_people_read_word_probability_reason_finding_and_where(tmp_path: Path, detector: Brightness, run: Run) -> None:
    file = picture(tmp_path / "[red]b\x1bright.jpg", 190)
    done = run("detect", file, "--heatmap", tmp_path / "where")
    for said in (
        "LIKELY_SYNTHETIC",
        "probability 83%",
        "1.0% of real",
        "brightness: bright (p 0.2)",
        "file: ",
        "where: ",
        "no proof",
    ):
        assert said in done.stdout
    assert "\x1b" not in done.stdout
    assert "[red]b" in done.stdout


def test_a_list_on_standard_input_is_followed(tmp_path: Path, detector: Brightness, run: Run) -> None:
    files = [picture(tmp_path / f"{number}.png", 20) for number in range(3)]
    answer = json.loads(run("detect", "-", "--json", given="\n".join(map(str, files))).stdout)
    assert [image["path"] for image in answer["images"]] == [str(file) for file in files]


def test_a_folder_without_images_is_a_usage_error(tmp_path: Path, detector: Brightness, run: Run) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    done = run("detect", tmp_path)
    assert isinstance(done.exception, FixInput)
    assert "1 no image files" in str(done.exception)


def test_without_its_libraries_detect_says_what_to_install(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "detector.inference", None)
    done = run("detect", picture(tmp_path / "a.png", 20))
    assert isinstance(done.exception, NotInstalled)
    assert done.exception.exit_code == 2
    assert "pip install" in str(done.exception)


# ---- verify -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def chest() -> Path:
    return Path(str(get_testdata_file("RG1_UNCR.dcm", download=False)))


def result_of(file: Path, token: Token) -> Result:
    found = Found(str(file), lambda: read(file))
    return Result(str(file), Verdict(token, ("a reason",)), None, found=found)


def test_an_unregistered_image_gets_an_opinion_and_keeps_its_verdict(chest: Path, detector: Brightness) -> None:
    before = result_of(chest, Token.UNREGISTERED)
    after, opinion = SecondOpinion(True).on(before)
    assert opinion is not None
    assert opinion["assessment"] == "LIKELY_SYNTHETIC"
    assert after.verdict.token is Token.UNREGISTERED
    assert after.verdict.reasons == before.verdict.reasons
    assert (before.verdict.exit_code, after.verdict.exit_code) == (3, 8)
    schema = VERIFY_SCHEMA["$defs"]["image"]["properties"]["detector"]
    jsonschema.validate(opinion, schema)


def test_other_opinions_leave_the_exit_code_as_it_was(chest: Path, detector: Brightness) -> None:
    for raises in (None, ValueError("no picture")):
        detector.raises = raises
        other = chest.with_name("CT_small.dcm")
        other = other if other.exists() else Path(str(get_testdata_file("CT_small.dcm", download=False)))
        after, opinion = SecondOpinion(True).on(result_of(other, Token.UNREGISTERED))
        assert opinion is not None
        assert opinion["assessment"] == "OUT_OF_SCOPE"
        assert after.verdict.exit_code == 3
    after, opinion = SecondOpinion(True).on(result_of(chest, Token.UNREGISTERED))
    assert opinion is not None
    assert opinion["assessment"] == "NOT_RUN"
    assert after.verdict.exit_code == 3


@pytest.mark.parametrize("token", [token for token in Token if token is not Token.UNREGISTERED])
def test_no_other_verdict_is_shown_to_the_detector(token: Token, chest: Path, detector: Brightness) -> None:
    before = result_of(chest, token)
    assert SecondOpinion(True).on(before) == (before, None)
    assert not detector.given


def test_the_detector_is_not_asked_when_it_is_switched_off(chest: Path, detector: Brightness) -> None:
    before = result_of(chest, Token.UNREGISTERED)
    assert SecondOpinion(False).on(before) == (before, None)
    assert not detector.given


def test_without_its_libraries_verify_goes_on_and_says_what_to_install(chest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "detector.inference", None)
    second = SecondOpinion(True)
    for _ in range(2):
        after, opinion = second.on(result_of(chest, Token.UNREGISTERED))
        assert opinion is not None
        assert opinion["assessment"] == "NOT_RUN"
        assert "pip install 'scanseal[detector]'" in opinion["reasons"][0]["text"]
        assert after.verdict.exit_code == 3


def test_a_likely_synthetic_image_outweighs_a_sealed_one_and_not_an_altered_one(chest: Path, detector: Brightness) -> None:
    synthetic, _ = SecondOpinion(True).on(result_of(chest, Token.UNREGISTERED))
    decisive = worst([Verdict(Token.AUTHENTIC), synthetic.verdict, Verdict(Token.PENDING)])
    assert decisive is not None
    assert decisive.exit_code == 8
    altered = worst([synthetic.verdict, Verdict(Token.ALTERED)])
    assert altered is not None
    assert altered.exit_code == 1
