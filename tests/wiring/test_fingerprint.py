"""Devices' fingerprints from sealed files to the reasons of `detect`. Sensors, ledger and detector are simulators."""

from __future__ import annotations

import json
import re
import stat
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import jsonschema
import numpy as np
import pydicom
import pytest
from click.testing import Result as Done
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from typer.testing import CliRunner

from ledger.cli.app import app
from ledger.core.errors import FixInput, NeedPermission
from ledger.core.evidence import write as serialized
from ledger.wiring.assembly import images
from ledger.wiring.fingerprints import PART, Enrolment, Fingerprints
from ledger.wiring.images import Found, subject
from ledger.wiring.opinion import Images, Opinions
from ledger.wiring.site import write_trust
from ledger.wiring.verification import Verifier
from tests.simulators.detector import Brightness
from tests.simulators.ledger import World
from tests.simulators.sensor import Sensor, chest

SHAPE = (160, 176)
PANEL = Sensor.made(SHAPE, 1, strength=0.01)
OTHER = Sensor.made(SHAPE, 2, strength=0.01)
SCHEMA = json.loads((Path(__file__).parents[2] / "ledger/cli/detect.schema.json").read_text())
SERIAL = "4711"
Run = Callable[..., Done]


def write(folder: Path, panel: Sensor, first: int, count: int, **changes: object) -> list[Path]:
    """Radiographs of 12 bits that claim the device of the simulated ledger."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for seed in range(first, first + count):
        dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
        if "DataSetTrailingPadding" in dataset:
            del dataset.DataSetTrailingPadding
        dataset.Manufacturer, dataset.ManufacturerModelName, dataset.DeviceSerialNumber = "Acme", "CT 3000", SERIAL
        dataset.Modality, dataset.BodyPartExamined = "DX", "CHEST"
        dataset.Rows, dataset.Columns = SHAPE
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{id(panel)}.{seed}"
        dataset.PixelData = panel.image(chest(SHAPE, seed), seed).tobytes()
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        files.append(folder / f"{seed:03}.dcm")
        dataset.save_as(files[-1])
    return files


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write(tmp_path_factory.mktemp("own"), PANEL, 0, 17)


@pytest.fixture(scope="module")
def sealed(own: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The trust file, and the evidence of all but the last of the device's images."""
    world, folder = World(), tmp_path_factory.mktemp("evidence")
    seals = [world.seal(subject(found, frozenset(("sha256",)))) for found in found_in(own[:16])]
    (folder / "all.seal.json").write_bytes(serialized(world.anchored(seals)))
    write_trust(folder / "trust.toml", world.trust(8))
    return folder / "trust.toml", folder / "all.seal.json"


@pytest.fixture(scope="module")
def known(own: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Fingerprints:
    made = Fingerprints(tmp_path_factory.mktemp("fingerprints"))
    made.enrol(found_in(own[:16]), None)
    return made


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> Brightness:
    simulated = Brightness()
    inference = ModuleType("detector.inference")
    inference.Detector = type("Detector", (), {"load": staticmethod(lambda: simulated)})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "detector.inference", inference)
    return simulated


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, [str(one) for one in arguments])


def found_in(files: Sequence[Path]) -> list[Found]:
    return list(images(str(file) for file in files))


def said(known: Fingerprints, file: Path) -> tuple[str | None, float | None]:
    """What the fingerprint gives as its reason, of a file."""
    opinions = Opinions(Brightness(), None, known)  # type: ignore[arg-type]
    (given,) = [opinions.of(looked) for looked in Images([str(file)])]
    reasons = [reason for reason in given.assessment.reasons if reason.part == PART]
    assert len(reasons) <= 1
    return (reasons[0].text, reasons[0].p_value) if reasons else (None, None)


def test_a_device_is_enrolled_from_its_sealed_images_and_detect_compares(
    own: list[Path], sealed: tuple[Path, Path], tmp_path: Path, run: Run, detector: Brightness
) -> None:
    trust, bundle = sealed
    theirs = write(tmp_path / "theirs", OTHER, 300, 4, DeviceSerialNumber="4712")
    folder = tmp_path / "known"
    ledger = ("--trust", trust, "--bundle", bundle, "--offline")
    others = [part for file in theirs for part in ("--others", file)]
    done = run("fingerprint", "enrol", *own[:16], *others, "--fingerprints", folder, *ledger, "--json")
    assert done.exit_code == 0, done.output
    made = json.loads(done.stdout)
    assert (made["images"], made["sealed"], made["distinctive"], made["unlike"]) == (16, True, True, [])
    assert (made["rows"], made["columns"], made["other_devices_images"]) == (*SHAPE, 4)

    genuine = write(tmp_path / "genuine", PANEL, 400, 1)[0]
    forged = write(tmp_path / "forged", OTHER, 401, 1)[0]
    done = run("detect", genuine, forged, "--fingerprints", folder, "--json")
    answer = json.loads(done.stdout)
    jsonschema.validate(answer, SCHEMA)
    first, second = ([one for one in image["reasons"] if one["part"] == PART] for image in answer["images"])
    assert first[0]["text"].startswith("looks like that device")
    assert "of other devices' images match" in first[0]["text"]
    assert second[0]["text"].startswith("this does not look like that device")
    assert second[0]["p_value"] == pytest.approx(1 / 17)
    plain = json.loads(run("detect", genuine, forged, "--json").stdout)
    assert [image["assessment"] for image in plain["images"]] == [image["assessment"] for image in answer["images"]]
    assert plain["exit_code"] == answer["exit_code"] == done.exit_code
    assert "device fingerprint" in run("detect", forged, "--fingerprints", folder).output

    listed = json.loads(run("fingerprint", "list", "--fingerprints", folder, "--json").stdout)["fingerprints"]
    assert [(one["device"], one["images"], one["sealed"]) for one in listed] == [(made["device"], 16, True)]
    assert made["device"][:20] in run("fingerprint", "list", "--fingerprints", folder).output.replace("\n", "")


def test_images_that_are_not_sealed_are_refused_unless_that_is_said(
    own: list[Path], sealed: tuple[Path, Path], tmp_path: Path, run: Run
) -> None:
    trust, bundle = sealed
    folder = tmp_path / "known"
    done = run("fingerprint", "enrol", *own, "--fingerprints", folder, "--trust", trust, "--bundle", bundle, "--offline")
    assert isinstance(done.exception, FixInput)
    assert "1 of 17 images are not AUTHENTIC (1 UNREGISTERED)" in str(done.exception)
    assert own[16].name in str(done.exception)
    assert not folder.exists()
    done = run("fingerprint", "enrol", *own, "--fingerprints", folder, "--unsealed")
    assert done.exit_code == 0
    assert "17 unsealed images" in done.output
    text, _ = said(Fingerprints(folder), own[16])
    assert (text or "").endswith("enrolled unsealed")


def test_a_fingerprint_tells_nothing_of_its_device_and_is_its_owners(known: Fingerprints) -> None:
    (file,) = known.folder.iterdir()
    assert len(file.stem) == 64
    for told in (b"Acme", b"CT 3000", SERIAL.encode()):
        assert told not in file.name.encode() + file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_no_word_changes_and_an_image_out_of_scope_is_compared_too(known: Fingerprints, tmp_path: Path) -> None:
    for part, word in (("CHEST", "NO_SIGN_OF_SYNTHESIS"), ("HAND", "OUT_OF_SCOPE")):
        (file,) = write(tmp_path / part, OTHER, 420, 1, BodyPartExamined=part)
        opinions = Opinions(Brightness(), None, known)  # type: ignore[arg-type]
        (given,) = [opinions.of(looked) for looked in Images([str(file)])]
        bare = Opinions(Brightness()).of(next(iter(Images([str(file)]))))  # type: ignore[arg-type]
        assert given.assessment.word == bare.assessment.word
        assert given.assessment.reasons[:-1] == bare.assessment.reasons
        assert given.assessment.reasons[-1].part == PART
        if part == "HAND":
            assert given.assessment.word == word
            assert given.assessment.synthetic_probability is None


def test_an_image_that_claims_no_enrolled_device_has_no_such_reason(known: Fingerprints, tmp_path: Path) -> None:
    for changes in ({"DeviceSerialNumber": "9"}, {"DeviceSerialNumber": ""}, {"Manufacturer": None}):
        (file,) = write(tmp_path, PANEL, 430, 1, **changes)
        assert said(known, file) == (None, None)


def test_what_cannot_be_compared_is_no_claim_and_says_why(known: Fingerprints, tmp_path: Path) -> None:
    coded = pydicom.dcmread(str(get_testdata_file("JPEG2000.dcm", download=False)))
    coded.Manufacturer, coded.ManufacturerModelName, coded.DeviceSerialNumber = "Acme", "CT 3000", SERIAL
    coded.Modality, coded.BodyPartExamined = "DX", "HAND"
    coded.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(200)])
    coded.save_as(tmp_path / "coded.dcm")
    (given,) = [
        Opinions(Brightness(), None, known).of(looked)  # type: ignore[arg-type]
        for looked in Images([str(tmp_path / "coded.dcm")])
    ]
    assert given.assessment.word == "OUT_OF_SCOPE"
    assert given.assessment.reasons[-1].text.startswith("no claim: the image can't be compared: ")
    (flat,) = write(tmp_path / "flat", PANEL, 441, 1, PixelData=bytes(2 * SHAPE[0] * SHAPE[1]))
    text, p_value = said(known, flat)
    assert (text or "").startswith("no claim: the image can't be compared: ")
    assert p_value is None
    half = Fingerprints(tmp_path / "half")
    half.folder.mkdir()
    (file,) = known.folder.iterdir()
    (half.folder / file.name).write_bytes(file.read_bytes()[:1000])
    text, _ = said(half, write(tmp_path / "fine", PANEL, 442, 1)[0])
    assert "damaged" in (text or "")


def test_pixels_that_are_stored_the_other_way_round_are_turned(known: Fingerprints, tmp_path: Path) -> None:
    pixels = 4095 - PANEL.image(chest(SHAPE, 450), 450)
    (turned,) = write(tmp_path / "1", PANEL, 450, 1, PixelData=pixels.tobytes(), PhotometricInterpretation="MONOCHROME1")
    (plain,) = write(tmp_path / "2", PANEL, 450, 1)
    energies = [re.search(r"^looks like that device.*energy (\d+)\)", said(known, file)[0] or "") for file in (turned, plain)]
    assert energies[0] is not None
    assert energies[1] is not None
    assert int(energies[0][1]) > 0.5 * int(energies[1][1])


@pytest.mark.parametrize(
    ("changes", "said_so"),
    [
        ({"DeviceSerialNumber": "9"}, "2 devices"),
        ({"DeviceSerialNumber": ""}, "does not name its device whole"),
        ({"Rows": 100, "PixelData": bytes(2 * 100 * SHAPE[1])}, "one grey level"),
        ({"Rows": 159, "PixelData": np.arange(159 * SHAPE[1], dtype=np.uint16).tobytes()}, "one size is needed"),
    ],
)
def test_images_that_do_not_belong_together_are_not_enrolled(
    own: list[Path], tmp_path: Path, changes: dict[str, object], said_so: str
) -> None:
    odd = write(tmp_path / "odd", PANEL, 460, 1, **changes)
    with pytest.raises(FixInput, match=said_so):
        Fingerprints(tmp_path / "known").enrol(found_in([*own[:16], *odd]), None)


def test_too_few_images_and_no_images_are_refused(own: list[Path], tmp_path: Path) -> None:
    known = Fingerprints(tmp_path / "known")
    with pytest.raises(FixInput, match="15 images: a fingerprint takes 16"):
        known.enrol(found_in(own[:15]), None)
    with pytest.raises(FixInput, match="no images there"):
        known.enrol([], None)
    text = tmp_path / "text.dcm"
    text.write_text("nothing")
    with pytest.raises(FixInput, match=r"text\.dcm"):
        known.enrol(found_in([text]), None)


def test_an_enrolled_device_is_kept_unless_it_is_to_be_replaced(
    own: list[Path], sealed: tuple[Path, Path], tmp_path: Path
) -> None:
    known = Fingerprints(tmp_path)
    first = known.enrol(found_in(own[:16]), None)
    with pytest.raises(FixInput, match="--replace"):
        known.enrol(found_in(own[:16]), None)
    with pytest.raises(FixInput, match="claims the device itself"):
        known.enrol(found_in(own[:16]), None, found_in(own[16:]), replace=True)
    again: Enrolment = known.enrol(found_in(own), None, replace=True)
    assert (first.images, again.images, again.file) == (16, 17, first.file)
    assert list(tmp_path.iterdir()) == [first.file]


def test_a_folder_that_cannot_be_written_is_said(own: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NeedPermission, match="cannot be written"):
        Fingerprints(tmp_path / "file" / "below").enrol(found_in(own[:16]), None)


def test_a_device_without_a_pattern_is_told_at_enrolment(tmp_path: Path, run: Run) -> None:
    weak = write(tmp_path / "weak", Sensor.made(SHAPE, 3, strength=0.0001), 0, 16)
    done = run("fingerprint", "enrol", *weak, "--unsealed", "--fingerprints", tmp_path / "known")
    assert done.exit_code == 0
    assert "it will make no claims" in done.output
    text, p_value = said(Fingerprints(tmp_path / "known"), write(tmp_path / "other", OTHER, 470, 1)[0])
    assert "isn't distinctive" in (text or "")
    assert p_value is None


def test_a_verifier_is_asked_of_every_image(own: list[Path], tmp_path: Path) -> None:
    verifier = Verifier(World().trust())
    with pytest.raises(FixInput, match="16 of 16 images are not AUTHENTIC"):
        Fingerprints(tmp_path).enrol(found_in(own[:16]), verifier)


def test_without_a_site_or_a_folder_it_says_what_to_name(
    own: list[Path], run: Run, tmp_path: Path, detector: Brightness
) -> None:
    done = run("fingerprint", "enrol", *own, "--unsealed")
    assert isinstance(done.exception, FixInput)
    assert "--fingerprints" in str(done.exception)
    done = run("detect", own[0], "--fingerprints", tmp_path / "gone")
    assert "no such folder" in str(done.exception)
