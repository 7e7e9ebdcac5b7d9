"""The main job: sealed, anchored, verified, on a real chain, by the commands that users have."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import jsonschema
import pydicom
import pytest
from pydicom.uid import JPEGLSLossless, RLELossless

from tests.journeys.conftest import MADE, Site, copy_test_file

SCHEMA = json.loads((Path(__file__).parents[2] / "ledger/cli/verify.schema.json").read_text())


def saved(dataset: pydicom.Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path)
    return path


def edited(path: Path, to: Path) -> Path:
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array.copy()
    pixels[70, 40] ^= 1
    dataset.PixelData = pixels.tobytes()
    return saved(dataset, to)


def test_everything_sealed_is_authentic_and_the_json_keeps_its_schema(site: Site):
    answer = site.json("verify", "made")
    jsonschema.validate(answer, SCHEMA)
    assert {image["verdict"] for image in answer["images"]} == {"AUTHENTIC"}
    assert len(answer["images"]) == len(MADE)
    for image in answer["images"]:
        after, before = image["sealed_between"]
        assert after is not None
        assert after <= before


def test_a_lossless_transcode_is_authentic_and_says_by_whom(site: Site, tmp_path: Path):
    for name, syntax in (("CT_small.dcm", RLELossless), ("MR_small.dcm", JPEGLSLossless)):
        dataset = pydicom.dcmread(site.folder / "made" / name)
        dataset.compress(syntax, generate_instance_uid=False)
        saved(dataset, tmp_path / name)
    dataset = pydicom.dcmread(site.folder / "made/examples_jpeg2k.dcm")
    dataset.decompress(generate_instance_uid=False)
    saved(dataset, tmp_path / "examples_jpeg2k.dcm")
    images = site.json("verify", tmp_path)["images"]
    assert {image["verdict"] for image in images} == {"AUTHENTIC"}
    assert all("Acme CT 3000" in image["device"] for image in images)


def test_an_edited_image_is_altered_and_shown_where(site: Site, tmp_path: Path):
    edited(site.folder / "made/CT_small.dcm", tmp_path / "CT_small.dcm")
    (image,) = site.json("verify", tmp_path, expect=1)["images"]
    assert image["verdict"] == "ALTERED"
    assert image["changed_regions"] == [{"frame": 0, "x": 0, "y": 64, "width": 64, "height": 64}]


def test_a_swapped_patient_is_a_mismatch_that_names_attributes_and_no_values(site: Site, tmp_path: Path):
    dataset = pydicom.dcmread(site.folder / "made/CT_small.dcm")
    dataset.PatientID, dataset.PatientName = "SECRET4711", "Secret^Jane"
    saved(dataset, tmp_path / "CT_small.dcm")
    done = site.run("verify", tmp_path, "--json", expect=1)
    (image,) = json.loads(done.stdout)["images"]
    assert (image["verdict"], image["differing"]) == ("MISMATCH", ["PatientName", "PatientID"])
    assert image["checks"]["patient"]["status"] == "failed"
    assert "SECRET" not in done.stdout.upper() + done.stderr.upper()


def test_what_was_never_sealed_is_unregistered(site: Site, tmp_path: Path):
    copy_test_file("examples_overlay.dcm", tmp_path)
    assert site.verdicts(tmp_path, expect=3) == {"examples_overlay.dcm": "UNREGISTERED"}


def test_a_missing_record_of_a_device_that_seals_everything_is_stripped(site: Site, tmp_path: Path):
    dataset = pydicom.dcmread(copy_test_file("examples_overlay.dcm", tmp_path / "source"))
    dataset.Manufacturer, dataset.ManufacturerModelName, dataset.DeviceSerialNumber = "Acme", "CT 3000", "4711"
    dataset.StudyDate = dataset.AcquisitionDate = "20250101"
    if "AcquisitionDateTime" in dataset:
        del dataset.AcquisitionDateTime
    saved(dataset, tmp_path / "stripped/image.dcm")
    assert site.verdicts(tmp_path / "stripped", expect=1) == {"image.dcm": "STRIPPED"}
    assert site.verdicts(tmp_path / "stripped", "--offline", expect=1) == {"image.dcm": "STRIPPED"}


def test_a_bundle_and_a_trust_file_verify_elsewhere_without_a_site_or_a_socket(site: Site, tmp_path: Path):
    site.run("bundle", "export", "-o", tmp_path / "all.seal.json")
    shutil.copyfile(site.folder / "trust.toml", tmp_path / "trust.toml")
    shutil.copytree(site.folder / "made", tmp_path / "made")
    watched = (
        "import sys\n"
        "def watch(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.bind', 'socket.sendto', 'socket.getaddrinfo'):\n"
        "        print('SOCKET', event, file=sys.stderr); raise SystemExit(99)\n"
        "sys.addaudithook(watch)\n"
        "from ledger.cli.__main__ import main\n"
        "main()\n"
    )
    arguments = ["verify", "made", "--bundle", "all.seal.json", "--trust", "trust.toml", "--json"]

    def verified(*more: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-c", watched, *arguments, *more], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )

    offline = verified("--offline")
    assert offline.returncode == 0, offline.stderr
    assert {image["verdict"] for image in json.loads(offline.stdout)["images"]} == {"AUTHENTIC"}
    online = verified()
    assert online.returncode == 99
    assert "SOCKET" in online.stderr


def test_evidence_beside_the_images_is_found_by_itself(site: Site, tmp_path: Path):
    for name in ("CT_small.dcm", "MR_small.dcm"):
        shutil.copyfile(site.folder / "made" / name, tmp_path / name)
    site.run("bundle", "export", tmp_path / "CT_small.dcm", tmp_path / "MR_small.dcm", "-o", tmp_path)
    assert {path.name for path in tmp_path.glob("*.seal.json")} == {"CT_small.dcm.seal.json", "MR_small.dcm.seal.json"}
    done = subprocess.run(
        [sys.executable, "-m", "ledger.cli", "verify", ".", "--trust", str(site.folder / "trust.toml"), "--offline", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["images"]) == 2
    (tmp_path / "CT_small.dcm.seal.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-m", "ledger.cli", "verify", "CT_small.dcm", "--trust", str(site.folder / "trust.toml"), "--offline"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 7


def test_folders_zips_lists_and_single_files_are_taken(site: Site, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for name in MADE:
            archive.write(site.folder / "made" / name, f"inner/{name}")
    assert site.verdicts(tmp_path / "study.zip") == dict.fromkeys(MADE, "AUTHENTIC")
    listed = "\n".join(f"made/{name}" for name in MADE[:2])
    images = site.json("verify", "-", given=listed)["images"]
    assert [image["path"] for image in images] == listed.split("\n")


def test_sealing_and_anchoring_twice_change_nothing(site: Site):
    again = site.json("seal", "made/CT_small.dcm", "--device", "ct1")
    assert (again["sealed"], again["already_sealed"]) == (0, 1)
    anchored = site.json("anchor")
    assert (anchored["sequenced"], anchored["anchors"]) == (0, [])


def test_inspect_shows_what_would_be_bound(site: Site):
    shown = site.json("inspect", "made/CT_small.dcm")
    assert shown["pixel_digest"].startswith("px1-sha256:")
    assert shown["transfer_syntax"] == "1.2.840.10008.1.2.1"
    assert shown["frames"] == 1
    assert shown["attributes"]["Modality"] == "CT"


def test_explain_says_what_it_means_and_what_not(site: Site, tmp_path: Path):
    copy = edited(site.folder / "made/CT_small.dcm", tmp_path / "CT_small.dcm")
    said = site.run("explain", copy, expect=1).stdout
    for part in ("ALTERED", "What it means", "What it does not mean", "What to do next"):
        assert part in said


def test_the_log_can_be_mirrored_and_checked(site: Site, tmp_path: Path):
    site.run("log", "export", tmp_path / "mirror")
    checked = site.json("log", "check", tmp_path / "mirror")
    assert checked["size"] == len(MADE)
    assert site.json("log", "check")["root"] == checked["root"]
    bundle = next((tmp_path / "mirror/tile/entries").rglob("*.p/*"))
    bundle.write_bytes(bundle.read_bytes()[:-1] + b"\0")
    site.run("log", "check", tmp_path / "mirror", expect=7)


def test_an_auditor_makes_a_trust_file_from_a_bundle_a_certificate_and_a_node(site: Site, tmp_path: Path):
    site.run("bundle", "export", "-o", tmp_path / "all.seal.json")
    trust = tmp_path / "trust.toml"
    url = f"http://127.0.0.1:{site.port}"
    site.run("trust", "init", trust, "--bundle", tmp_path / "all.seal.json", "--authority", "ca/ca.pem", "--rpc", url)
    arguments = ("made", "--bundle", tmp_path / "all.seal.json", "--trust", trust)
    elsewhere = {"SCANSEAL_SITE": ""}
    offline = site.run("verify", *arguments, "--offline", "--json", expect=None, env=elsewhere)
    assert offline.returncode in (0, 6)
    site.run("trust", "update", trust, "--bundle", tmp_path / "all.seal.json")
    assert site.json("trust", "show", trust)["blocks"] >= 1
    assert set(site.verdicts(*arguments, "--offline").values()) == {"AUTHENTIC"}


def test_a_stolen_keys_seals_are_revoked_and_older_ones_stay(own_site: Site, tmp_path: Path):
    before, after = copy_test_file("CT_small.dcm", tmp_path / "before"), copy_test_file("MR_small.dcm", tmp_path / "after")
    own_site.run("seal", before, "--device", "ct1")
    own_site.run("anchor")
    own_site.run("seal", after, "--device", "ct1")
    own_site.run("device", "revoke", "ct1", "--compromised-since", "now")
    own_site.run("anchor")
    for more in ([], ["--offline"]):
        assert own_site.verdicts(before, *more) == {"CT_small.dcm": "AUTHENTIC"}
        assert own_site.verdicts(after, *more, expect=1) == {"MR_small.dcm": "REVOKED"}
    (row,) = own_site.json("device", "list")["keys"]
    assert row["compromised_since"]


def test_a_key_is_rotated_once_its_seals_are_final(own_site: Site, tmp_path: Path):
    first, second = copy_test_file("CT_small.dcm", tmp_path / "a"), copy_test_file("MR_small.dcm", tmp_path / "b")
    own_site.run("seal", first, "--device", "ct1")
    refused = own_site.run("device", "rotate", "ct1", "ct1-new", expect=2)
    assert "scanseal anchor" in refused.stderr
    own_site.run("anchor")
    own_site.run("device", "rotate", "ct1", "ct1-new")
    own_site.run("seal", second, "--device", "ct1-new")
    own_site.run("anchor")
    assert set(own_site.verdicts(tmp_path / "a", tmp_path / "b").values()) == {"AUTHENTIC"}


def test_before_the_anchor_a_seal_is_pending(own_site: Site, tmp_path: Path):
    image = copy_test_file("CT_small.dcm", tmp_path)
    own_site.run("seal", image, "--device", "ct1")
    assert own_site.verdicts(image, expect=4) == {"CT_small.dcm": "PENDING"}
    assert own_site.verdicts(image, "--offline", expect=4) == {"CT_small.dcm": "PENDING"}


@pytest.mark.parametrize("hash_name", ["blake3"])
def test_another_hash_profile_serves_as_well(own_site: Site, tmp_path: Path, hash_name: str):
    image = copy_test_file("MR_small_RLE.dcm", tmp_path)
    own_site.run("seal", image, "--device", "ct1", "--hash", hash_name)
    own_site.run("anchor")
    assert own_site.verdicts(image) == {"MR_small_RLE.dcm": "AUTHENTIC"}
    assert own_site.json("inspect", image, "--hash", hash_name)["pixel_digest"].startswith(f"px1-{hash_name}:")
