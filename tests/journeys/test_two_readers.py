"""Files in which other programs see another image than was sealed, and files that a run leaves out: none is in order."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pydicom
import pytest

from tests.journeys.conftest import Site, copy_test_file

SCHEMA = json.loads((Path(__file__).parents[2] / "ledger/cli/verify.schema.json").read_text())
Change = Callable[[pydicom.Dataset], object]


def setting(**values: object) -> Change:
    return lambda dataset: [setattr(dataset, keyword, value) for keyword, value in values.items()]


MODULES: dict[str, tuple[str, Change]] = {
    "lossy, inverted": ("JPEG-lossy.dcm", setting(PhotometricInterpretation="MONOCHROME1")),
    "lossy, of 8 bits": ("JPEG-lossy.dcm", setting(BitsStored=8, HighBit=7)),
    "lossy, signed": ("JPEG-lossy.dcm", setting(PixelRepresentation=1)),
    "raw, inverted": ("odd.dcm", setting(PhotometricInterpretation="MONOCHROME1")),
    "raw, of another shape": ("odd.dcm", setting(Rows=64, Columns=256)),
    "raw, unsigned": ("odd.dcm", setting(HighBit=15, PixelRepresentation=0)),
}


def test_sealed_bytes_under_another_pixel_module_are_altered(own_site: Site, tmp_path: Path) -> None:
    made, changed = own_site.folder / "made", tmp_path / "changed"
    made.mkdir(exist_ok=True)
    changed.mkdir()
    copy_test_file("JPEG-lossy.dcm", made)
    dataset = pydicom.dcmread(copy_test_file("CT_small.dcm", made))
    dataset.HighBit = 14
    dataset.save_as(made / "odd.dcm")
    answer = own_site.json("seal", made, "--device", "ct1")
    profiles = {Path(one["path"]).name: one["profile"] for one in answer["images"]}
    assert (profiles["JPEG-lossy.dcm"], profiles["odd.dcm"]) == ("cs1-sha256", "raw1-sha256")
    own_site.run("anchor")
    for name, (source, change) in MODULES.items():
        dataset = pydicom.dcmread(made / source)
        dataset.save_as(changed / f"{name}, as it was.dcm")
        change(dataset)
        dataset.save_as(changed / f"{name}.dcm")
    found = {Path(path).stem: verdict for path, verdict in own_site.verdicts(changed, expect=1).items()}
    assert found == {
        name + end: verdict for name in MODULES for end, verdict in (("", "ALTERED"), (", as it was", "AUTHENTIC"))
    }


def forged(site: Site) -> pydicom.Dataset:
    dataset = pydicom.dcmread(site.folder / "made/CT_small.dcm")
    dataset.PatientName, dataset.PatientID = "Forged^Patient", "666"
    return dataset


def zipped(*entries: tuple[str, bytes], hidden: str | None = None) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, content in entries:
            archive.writestr(name, content)
        archive.filelist = [one for one in archive.filelist if one.filename != hidden]
    return written.getvalue()


def polyglot(site: Site) -> bytes:
    dataset = forged(site)
    genuine = zipped(("x.dcm", (site.folder / "made/CT_small.dcm").read_bytes()))
    dataset.add_new(0xFFFCFFFC, "OB", genuine + bytes(len(genuine) % 2))
    dataset.preamble = b"PK\3\4" + bytes(124)
    return as_bytes(dataset)


def as_bytes(dataset: pydicom.Dataset) -> bytes:
    written = io.BytesIO()
    pydicom.dcmwrite(written, dataset, enforce_file_format=False)
    return written.getvalue()


def masked(site: Site) -> bytes:
    dataset = forged(site)
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.MediaStorageDirectoryStorage
    return as_bytes(dataset)


def headerless(site: Site) -> bytes:
    whole = as_bytes(forged(site))
    return whole[whole.index(b"\x08\0\x05\0CS") :] + bytes(4)


HIDING: dict[str, Callable[[Site], bytes]] = {
    "a zip to one, an image to the other": polyglot,
    "a zip with an entry that its directory has not": lambda site: zipped(
        ("evil.dcm", as_bytes(forged(site))),
        ("good.dcm", (site.folder / "made/CT_small.dcm").read_bytes()),
        hidden="evil.dcm",
    ),
    "a zip in a zip": lambda site: zipped(("inner.zip", zipped(("evil.dcm", as_bytes(forged(site)))))),
    "an image that says it is a DICOMDIR": masked,
    "an image that only lenient readers open": headerless,
}


@pytest.mark.parametrize("name", HIDING)
def test_an_image_does_not_hide_beside_one_in_order(site: Site, tmp_path: Path, name: str) -> None:
    shutil.copy(site.folder / "made/CT_small.dcm", tmp_path / "a.dcm")
    (tmp_path / "b").write_bytes(HIDING[name](site))
    answer = site.json("verify", tmp_path, "--offline", expect=7)
    assert sorted(image["verdict"] for image in answer["images"]) == ["AUTHENTIC", "NOT_CHECKED"]
    assert answer["skipped"] == 0


def test_what_is_left_out_is_counted_and_is_no_failure(own_site: Site, tmp_path: Path) -> None:
    study = tmp_path / "study"
    study.mkdir()
    copy_test_file("CT_small.dcm", study)
    copy_test_file("test-SR.dcm", study)
    copy_test_file("rtplan.dcm", study)
    (study / "notes.txt").write_text("hello")
    sealed = own_site.json("seal", study, "--device", "ct1")
    assert (sealed["sealed"], sealed["without_pixels"], sealed["skipped"]) == (1, 2, 1)
    assert "left out: 2 without pixels, 1 no DICOM" in own_site.run("seal", study, "--device", "ct1").stdout
    own_site.run("anchor")
    answer = own_site.json("verify", study)
    jsonschema.validate(answer, SCHEMA)
    assert (answer["verdict"], answer["skipped"], answer["without_pixels"], len(answer["images"])) == ("AUTHENTIC", 1, 2, 1)
    assert "1 image: 1 AUTHENTIC (left out: 2 without pixels, 1 no DICOM)" in own_site.run("verify", study).stdout


def test_a_named_file_without_pixels_is_not_checked_and_a_folder_of_them_has_no_images(site: Site, tmp_path: Path) -> None:
    copy_test_file("test-SR.dcm", tmp_path)
    (image,) = site.json("verify", tmp_path / "test-SR.dcm", expect=7)["images"]
    assert (image["verdict"], image["reasons"]) == ("NOT_CHECKED", ["the object has no pixels: there is nothing to verify"])
    assert "no images there (left out: 1 without pixels)" in site.run("verify", tmp_path, expect=2).stderr
