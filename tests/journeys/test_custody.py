"""An image's way through hospital, gateway and CRO: steps, derivations, signatures, erasure, on a real chain."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEGLSLossless, RLELossless, generate_uid

from tests.journeys.conftest import Site, add_device, copy_test_file, make_site

IMAGES = ("CT_small.dcm", "MR_small.dcm", "examples_jpeg2k.dcm", "JPEG-lossy.dcm", "examples_palette.dcm")
BASIC = ("--profile", "ps3.15-basic", "--patient-id", "S01", "--patient-name", "S01")


def add_key(site: Site, name: str, roles: str, *more: str) -> None:
    named = ("--manufacturer", "Acme", "--model", name, "--serial", name, "--ae", name.upper())
    site.run("device", "request", name, *(() if "--person" in more else named), *more)
    site.run("device", "approve", name, "--roles", roles)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with a scanner, a gateway, a CRO, a person and a lab; five images sealed, stored and de-identified."""
    made = make_site(tmp_path_factory.mktemp("trial"))
    try:
        add_device(made, "ct1", "secp256k1", "4711")
        add_key(made, "gw", "transform,hold")
        add_key(made, "cro", "hold,read", "--at", "CRO Inc")
        add_key(made, "ada", "approve", "--person", "Ada Lovelace")
        add_key(made, "lab", "generate")
        for name in IMAGES:
            copy_test_file(name, made.folder / "in")
        made.run("seal", "in", "--device", "ct1")
        made.run("custody", "add", "in", "--action", "stored", "--device", "gw")
        made.run("derive", "in", "out", *BASIC, "--device", "gw")
        yield made
    finally:
        made.run("devnet", "down", expect=None)


def edited(path: Path, name: str, **changes: object) -> Path:
    """A copy of an image beside it with other attributes or pixels."""
    dataset = pydicom.dcmread(path)
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    target = path.parent / name
    dataset.save_as(target)
    return target


def test_an_image_that_was_stored_de_identified_handed_over_and_signed_verifies_anywhere(site, tmp_path):
    site.run("custody", "add", "out", "--action", "transferred", "--to", "cro", "--device", "gw")
    site.run("custody", "add", "out", "--action", "received", "--device", "cro")
    site.run("custody", "add", "out/CT_small.dcm", "--action", "read", "--device", "cro")
    site.run("esign", "out/CT_small.dcm", "--as", "ada", "--meaning", "reviewed")
    site.run("anchor")
    assert set(site.verdicts("in").values()) == {"AUTHENTIC"}
    assert set(site.verdicts("out").values()) == {"DERIVED"}
    site.run("bundle", "export", "out", "-o", "out.seal.json")
    site.run("trust", "update", "--bundle", "out.seal.json")
    for name in ("out.seal.json", "trust.toml"):
        shutil.copy(site.folder / name, tmp_path)
    shutil.copytree(site.folder / "out", tmp_path / "out")
    elsewhere = Site(tmp_path, 0)
    evidence = ("--bundle", "out.seal.json", "--trust", "trust.toml", "--offline")
    env = {"SCANSEAL_SITE": ""}
    found = elsewhere.json("verify", "out", *evidence, env=env)
    assert {image["verdict"] for image in found["images"]} == {"DERIVED"}
    (trail,) = elsewhere.json("custody", "verify", "out/CT_small.dcm", *evidence, env=env)["images"]
    assert trail["custody"] == "COMPLETE"
    steps = [step["action"] for step in trail["steps"]]
    assert steps == ["acquired", "stored", "de-identified", "transferred", "received", "read", "approved"]
    assert trail["steps"][-1]["by"] == "Ada Lovelace (Test Hospital)"
    assert trail["steps"][-1]["meaning"] == "reviewed"


def test_a_bundle_of_a_de_identified_image_has_nothing_that_opens_the_original(site, tmp_path):
    output = tmp_path / "child.seal.json"
    site.run("bundle", "export", "out/MR_small.dcm", "-o", output)
    bundle = json.loads(output.read_text())
    assert len(bundle["seals"]) == 1
    assert all("image_key" not in record for record in bundle["records"])
    text = output.read_text()
    original = pydicom.dcmread(site.folder / "in/MR_small.dcm")
    for value in (original.PatientName, original.PatientID, original.StudyInstanceUID, original.SOPInstanceUID):
        assert str(value) not in text
    originals = tmp_path / "original.seal.json"
    site.run("bundle", "export", "in/MR_small.dcm", "-o", originals)
    (opened,) = json.loads(originals.read_text())["seals"]
    assert opened["image_key"] not in text


@pytest.mark.parametrize(
    ("what", "change", "named"),
    [
        ("pixel", {}, "PixelData"),
        ("spacing", {"PixelSpacing": [1, 1]}, "PixelSpacing"),
        ("laterality", {"Laterality": "L"}, "Laterality"),
        ("rescale", {"RescaleIntercept": "0"}, "RescaleIntercept"),
        ("modality", {"Modality": "MR"}, "Modality"),
    ],
)
def test_a_false_receipt_is_refused_and_names_what_was_changed(site, what, change, named):
    child = edited(site.folder / "out/CT_small.dcm", f"../{what}.dcm", **change)
    if what == "pixel":
        dataset = pydicom.dcmread(child)
        pixels = dataset.pixel_array.copy()
        pixels[3, 3] += 1
        dataset.PixelData = pixels.tobytes()
        dataset.save_as(child)
    done = site.run("derive", "in/CT_small.dcm", "--existing", child, "--profile", "ps3.15-basic", "-d", "gw", expect=7)
    assert named in done.stdout


def test_a_swapped_parent_is_refused(site):
    swapped = ("derive", "in/MR_small.dcm", "--existing", "out/CT_small.dcm", "--operation", "de-identified", "-d", "gw")
    done = site.run(*swapped, expect=7)
    assert "PixelData" in done.stdout


def test_a_step_by_a_key_without_the_role_or_out_of_order_is_refused(site):
    done = site.run("custody", "add", "in/CT_small.dcm", "--action", "stored", "--device", "ct1", expect=2)
    assert "may not hold" in done.stderr
    done = site.run("custody", "add", "in/CT_small.dcm", "--action", "received", "--device", "cro", expect=7)
    assert "nobody transferred it" in done.stdout
    done = site.run("custody", "add", "in/CT_small.dcm", "--action", "transferred", "--device", "gw", expect=2)
    assert "--to" in done.stderr
    done = site.run("esign", "in/CT_small.dcm", "--as", "gw", "--meaning", "approved", expect=2)
    assert "no person" in done.stderr


def test_derivations_of_every_kind_are_sealed_and_what_they_declare_is_recomputed(site):
    parent = site.folder / "in/CT_small.dcm"
    work = site.folder / "made"
    work.mkdir(exist_ok=True)
    dataset = pydicom.dcmread(parent)
    values = dataset.pixel_array.copy()

    def saved(name: str, new: bool = True, **changes: object) -> Path:
        copy = pydicom.dcmread(parent)
        if new:
            copy.SOPInstanceUID = copy.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        for keyword, value in changes.items():
            setattr(copy, keyword, value)
        copy.save_as(work / name)
        return work / name

    coarse = (values // 4) * 4
    lossy = saved("lossy.dcm", PixelData=coarse.tobytes())
    burnt = values.copy()
    burnt[:20, :40] = values.max()
    burn_in = saved("burnt.dcm", PixelData=burnt.tobytes())
    crop = saved("crop.dcm", PixelData=np.ascontiguousarray(values[64:, :]).tobytes(), Rows=64)
    corrected = saved("corrected.dcm", new=False, AccessionNumber="A-2")
    capture = saved("capture.dcm", PixelData=bytes(len(dataset.PixelData)), Modality="OT")
    rle = pydicom.dcmread(parent)
    rle.compress(RLELossless, generate_instance_uid=False)
    rle.save_as(work / "rle.dcm")

    def derive(child: Path, operation: str, *more: object, expect: int = 0) -> str:
        arguments = ("derive", parent, "--existing", child, "--operation", operation, "--device", "gw")
        return site.run(*arguments, *more, expect=expect).stdout

    derive(lossy, "lossy-compression")
    derive(burn_in, "burn-in")
    derive(crop, "crop", "--x", 0, "--y", 64)
    derive(corrected, "correction", "--reason", "the order was entered twice")
    derive(capture, "ai-result", "--tool", "segmenter 2.1")
    derive(work / "rle.dcm", "transcoded")
    assert "PixelSpacing" in derive(saved("bad.dcm", PixelSpacing=[2, 2]), "burn-in", expect=7)
    assert "PatientName" in derive(saved("other.dcm", PatientName="Other^One"), "secondary-capture", expect=7)
    site.run("derive", parent, "--existing", corrected, "--operation", "correction", "--device", "gw", expect=7)
    site.run("anchor")
    found = site.verdicts("made/lossy.dcm", "made/burnt.dcm", "made/crop.dcm", "made/corrected.dcm", "made/capture.dcm")
    assert set(found.values()) == {"DERIVED"}
    assert site.verdicts("made/rle.dcm") == {"rle.dcm": "AUTHENTIC"}

    def recomputed(child: Path) -> dict:
        (image,) = site.json("custody", "verify", child, "--parent", parent)["images"]
        return image["recomputed"]

    difference = np.abs(values.astype(np.int64) - coarse)
    assert recomputed(lossy)["found"] == {
        "maximum_error": int(difference.max()),
        "mean_error": f"{difference.mean():.6f}",
    }
    assert recomputed(lossy)["holds"] is True
    assert recomputed(burn_in)["surviving_tiles"] == 3
    assert recomputed(burn_in)["tiles_of_parent"] == 4
    assert recomputed(crop)["surviving_tiles"] == 2
    site.run("custody", "verify", lossy, "--parent", "in/MR_small.dcm", expect=2)


def test_a_synthetic_image_stays_synthetic_and_is_never_sealed_as_acquired(site):
    synthetic = edited(
        site.folder / "in/MR_small.dcm", "../synthetic.dcm", SOPInstanceUID=generate_uid(), PixelData=bytes(64 * 64 * 2)
    )
    site.run("seal", synthetic, "--device", "lab", "--synthetic", "--generator", "StyleGAN 3")
    refused = site.run("seal", synthetic, "--device", "ct1", expect=2)
    assert "declared synthetic" in refused.stderr
    laundered = edited(synthetic, "laundered.dcm", PatientName="Real^Patient", SOPInstanceUID=generate_uid())
    refused = site.run("seal", laundered, "--device", "ct1", expect=2)
    assert "StyleGAN 3" in refused.stderr
    site.run("seal", synthetic, "--device", "ct1", "--synthetic", "--generator", "x", expect=2)
    site.run("derive", synthetic, "child.dcm", *BASIC, "--device", "gw")
    site.run("anchor")
    for name in ("synthetic.dcm", "child.dcm"):
        (image,) = site.json("verify", name, expect=9)["images"]
        assert (image["verdict"], image["generator"]) == ("DECLARED_SYNTHETIC", "StyleGAN 3")
    (image,) = site.json("verify", laundered, expect=1)["images"]
    assert image["verdict"] == "MISMATCH"
    assert any("StyleGAN 3" in reason for reason in image["reasons"])


def test_four_eyes_are_asked_for_where_the_site_says_so(site):
    add_key(site, "ben", "approve", "--person", "Benjamin Peirce")
    settings = (site.folder / "site.toml").read_text()
    (site.folder / "site.toml").write_text(settings + '\nfour_eyes = ["enrolment", "revocation"]\n')
    try:
        site.run("device", "request", "ct2", "--manufacturer", "Acme", "--model", "CT", "--serial", "2", "--ae", "CT2")
        refused = site.run("device", "approve", "ct2", expect=2)
        assert "scanseal esign enrol:ct2:acquire" in refused.stderr
        site.run("esign", "enrol:ct2:acquire", "--as", "ada", "--meaning", "approved")
        site.run("esign", "enrol:ct2:acquire", "--as", "ada", "--meaning", "approved again")
        site.run("device", "approve", "ct2", expect=2)
        site.run("esign", "enrol:ct2:acquire", "--as", "ben", "--meaning", "approved")
        site.run("device", "approve", "ct2", "--roles", "acquire,generate", expect=2)
        site.run("device", "approve", "ct2")
        site.run("device", "revoke", "ct2", "--compromised-since", "now", expect=2)
        for person in ("ada", "ben"):
            site.run("esign", "revoke:ct2", "--as", person, "--meaning", "approved")
        site.run("device", "revoke", "ct2", "--compromised-since", "now")
    finally:
        (site.folder / "site.toml").write_text(settings)


def test_a_redacted_study_can_be_learned_from_nowhere_and_every_other_proof_holds(site, tmp_path):
    name = "examples_jpeg2k.dcm"
    site.run("anchor")
    site.run("bundle", "export", "in", "-o", "evidence")
    site.run("bundle", "export", "in", "-o", "all.seal.json")
    site.run("bundle", "export", f"in/{name}", f"out/{name}", "-o", "both.seal.json")
    site.run("trust", "update", "--bundle", "both.seal.json")
    own = json.loads((site.folder / "evidence" / f"{name}.seal.json").read_text())
    (opened,) = own["seals"]
    study = str(pydicom.dcmread(site.folder / "in" / name).StudyInstanceUID)
    refused = site.run("redact", study, "--yes", expect=2)
    assert "--keep-derived" in refused.stderr
    done = site.json("redact", study, "--yes", "--keep-derived")
    assert (done["studies"], done["bundles_removed"]) == (1, 1)
    assert done["bundles_rewritten"] >= 1
    assert done["derived_kept"] == 1
    erased = [opened["image_key"], own["studies"][0], opened["find"]]
    from ledger.core.strict import from_b64

    for file in site.folder.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not any(from_b64(secret) in content or secret.encode() in content for secret in erased), file
    left = {"in/CT_small.dcm", "in/MR_small.dcm", "in/JPEG-lossy.dcm", "in/examples_palette.dcm"}
    assert set(site.verdicts(*sorted(left)).values()) == {"AUTHENTIC"}
    assert site.verdicts(f"in/{name}", expect=1) in ({name: "UNREGISTERED"}, {name: "MISMATCH"})
    assert site.verdicts(f"out/{name}") == {name: "DERIVED"}
    for file in (f"out/{name}", "both.seal.json", "trust.toml"):
        shutil.copy(site.folder / file, tmp_path)
    evidence = ("--bundle", "both.seal.json", "--trust", "trust.toml", "--offline")
    left = Site(tmp_path, 0).json("verify", name, *evidence, env={"SCANSEAL_SITE": ""})
    assert left["verdict"] == "DERIVED"
    site.run("redact", study, "--yes", "--keep-derived", expect=2)
    site.run("log", "check")


def test_a_jpeg_ls_copy_of_a_de_identified_image_is_still_derived(site):
    dataset = pydicom.dcmread(site.folder / "out/CT_small.dcm")
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    dataset.save_as(site.folder / "copy.dcm")
    site.run("anchor")
    assert site.verdicts("copy.dcm") == {"copy.dcm": "DERIVED"}
