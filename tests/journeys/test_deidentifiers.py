"""Images that four different tools de-identified: each child of an untouched parent is DERIVED, and an edited one is not."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from tests.journeys.conftest import Site, add_device, copy_test_file, make_site
from tests.journeys.orthanc import orthanc
from tests.journeys.test_custody import add_key

IMAGES = (
    "CT_small.dcm",
    "MR_small.dcm",
    "examples_jpeg2k.dcm",
    "JPEG-lossy.dcm",
    "examples_palette.dcm",
    "liver_1frame.dcm",
    "examples_rgb_color.dcm",
    "examples_ybr_color.dcm",
)
TOOLS = ("scanseal", "orthanc", "dicognito", "dicom-anonymizer")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = make_site(tmp_path_factory.mktemp("four-tools"))
    try:
        add_device(made, "ct1", "secp256k1", "4711")
        add_key(made, "gw", "transform,hold")
        for name in IMAGES:
            copy_test_file(name, made.folder / "in")
        made.run("seal", "in", "--device", "ct1")
        yield made
    finally:
        made.run("devnet", "down", expect=None)


def by_scanseal(source: Path, target: Path, work: Path) -> None:
    raise AssertionError("derive makes them itself")


def by_orthanc(source: Path, target: Path, work: Path) -> None:
    with orthanc(work) as server:
        for image in sorted(source.iterdir()):
            (target / image.name).write_bytes(server.anonymized(image.read_bytes()))


def by_dicognito(source: Path, target: Path, work: Path) -> None:
    command = [sys.executable, "-m", "dicognito", str(source), "--output-directory", str(target), "--seed", "s"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def by_dicom_anonymizer(source: Path, target: Path, work: Path) -> None:
    command = [sys.executable, "-m", "dicomanonymizer.anonymizer", str(source), str(target)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


MAKERS = {"orthanc": by_orthanc, "dicognito": by_dicognito, "dicom-anonymizer": by_dicom_anonymizer}


@pytest.mark.parametrize("tool", TOOLS)
def test_each_child_of_an_untouched_parent_is_derived(site, tool, tmp_path):
    target = site.folder / tool
    target.mkdir()
    if tool == "scanseal":
        site.run("derive", "in", tool, "--profile", "ps3.15-basic", "--patient-id", "S01", "--device", "gw")
    else:
        MAKERS[tool](site.folder / "in", target, tmp_path / "work")
        derived = site.run(
            "derive", "in", "--existing", tool, "--profile", "ps3.15-basic", "--tool", tool, "-d", "gw", expect=None
        )
        assert derived.returncode == 0, derived.stdout
    site.run("anchor")
    verdicts = site.verdicts(tool)
    assert len(verdicts) == len(IMAGES)
    assert set(verdicts.values()) == {"DERIVED"}
    edited = sorted(target.rglob("*"))[0]
    dataset = pydicom.dcmread(edited)
    dataset.PixelSpacing = [9, 9]
    dataset.save_as(site.folder / "edited.dcm")
    assert site.verdicts("edited.dcm", expect=1) == {"edited.dcm": "MISMATCH"}
