"""A trial from the scanners of two sites to the auditor: docs/trial.md, carried out. The audit finds exactly what was done."""

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import generate_uid

from tests.journeys.conftest import Site, add_device, copy_test_file, make_site
from tests.journeys.test_custody import add_key

VISITS = {
    ("A-01", "V1"): ("CT_small.dcm", "MR_small.dcm"),
    ("A-01", "V2"): ("examples_jpeg2k.dcm",),
    ("A-01", "V3"): ("liver_1frame.dcm",),
    ("B-01", "V1"): ("examples_palette.dcm",),
    ("B-01", "V2"): ("examples_rgb_color.dcm", "examples_ybr_color.dcm"),
    ("B-01", "V3"): (),
}
PROTOCOL = "subject;visit;due;minimum_images\n" + "".join(
    f"{subject};{visit};2026-01-31;{1 if images else 0}\n" for (subject, visit), images in VISITS.items()
)


def scanner(subject: str) -> str:
    return f"ct{subject[0].lower()}"


def gateway(subject: str) -> str:
    return f"gw{subject[0].lower()}"


def hold_visit(site: Site, subject: str, visit: str, images: tuple[str, ...]) -> None:
    """Scans, seals, de-identifies and lists the images of a visit."""
    place = f"{subject}-{visit}"
    for name in images:
        copy_test_file(name, site.folder / "scanned" / place)
    if (subject, visit) == ("A-01", "V2"):
        dataset = pydicom.dcmread(site.folder / "scanned/A-01-V1/CT_small.dcm")
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.PixelData = bytes(reversed(dataset.PixelData))
        dataset.save_as(site.folder / "scanned" / place / "second.dcm")
    if images:
        site.run("seal", f"scanned/{place}", "--device", scanner(subject))
    for name in images:
        source, target = f"scanned/{place}/{name}", f"sent/{place}/{name}"
        basic = ("--profile", "ps3.15-basic", "--patient-id", subject, "--patient-name", subject)
        site.run("derive", source, target, *basic, "--device", gateway(subject))
    if (subject, visit) == ("A-01", "V3"):
        correct(site, site.folder / "sent" / place / images[0])
    paths = [f"sent/{place}"] if images else []
    named = ("--subject", subject, "--visit", visit, "--device", gateway(subject))
    accounts = () if images else ("--account", scanner(subject), "--reason", "patient did not come")
    site.run("trial", "visit", "ABC-301", *paths, *named, *accounts)


def correct(site: Site, image: Path) -> None:
    """A legitimate late correction: another body part, with its reason, approved by a person."""
    dataset = pydicom.dcmread(image)
    dataset.BodyPartExamined = "LIVER"
    dataset.save_as(site.folder / "corrected.dcm")
    why = ("--operation", "correction", "--reason", "entered as the wrong organ")
    site.run("derive", image, "--existing", "corrected.dcm", *why, "--device", "gwa")
    shutil.move(site.folder / "corrected.dcm", image)
    site.run("esign", image, "--as", "ada", "--meaning", "correction approved")


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two sites sealed and de-identified six visits, one scan was never sent, one attribute was corrected; all is signed."""
    site = make_site(tmp_path_factory.mktemp("trial"))
    try:
        for letter in "ab":
            add_device(site, f"ct{letter}", "secp256k1", f"100{letter}")
            add_key(site, f"gw{letter}", "transform,hold", "--at", f"Hospital {letter.upper()}")
        add_key(site, "ada", "approve", "--person", "Ada Lovelace")
        add_key(site, "ben", "approve", "--person", "Benjamin Peirce")
        (site.folder / "visits.csv").write_text(PROTOCOL)
        site.run("trial", "new", "ABC-301", "--protocol", "visits.csv")
        for (subject, visit), images in VISITS.items():
            hold_visit(site, subject, visit, images)
        site.run("transmittal", "create", "ABC-301", "out")
        site.run("transmittal", "sign", "out", "--device", "gwa")
        for person in ("ada", "ben"):
            site.run("esign", "out/manifest.jsonl", "--as", person, "--meaning", "approved for transfer")
        site.run("anchor")
        site.run("transmittal", "export", "out")
        site.run("trust", "update", "--bundle", "out/evidence")
        yield site
    finally:
        site.run("devnet", "down", expect=None)


@pytest.fixture
def received(trial: Site, tmp_path: Path) -> Site:
    """What the auditor has: a copy of the images, the transmittal, a trust file, the protocol; and no site."""
    for name in ("sent", "out"):
        shutil.copytree(trial.folder / name, tmp_path / name)
    for name in ("trust.toml", "visits.csv"):
        shutil.copy(trial.folder / name, tmp_path)
    policy = "\n[policy]\napprovals = 2\n"
    (tmp_path / "trust.toml").write_text((tmp_path / "trust.toml").read_text() + policy)
    return Site(tmp_path, 0)


RUN = ("audit", "run", "-m", "out", "-i", "sent", "--trust", "trust.toml", "--protocol", "visits.csv", "--offline")
NO_SITE = {"SCANSEAL_SITE": ""}


def kinds(audit: dict) -> list[tuple]:
    return sorted((found["kind"], found["subject"], found["visit"]) for found in audit["findings"])


def test_an_honest_transmittal_shows_the_one_scan_that_was_never_sent(received):
    audit = received.json(*RUN, expect=5, env=NO_SITE)
    assert kinds(audit) == [("withheld_counter", "A-01", "V2")]
    assert audit["verdict"] == "WITHHELD"
    assert audit["images"] == {"DERIVED": 7}
    tokens = {(visit["subject"], visit["visit"]): visit["token"] for visit in audit["visits"]}
    assert tokens == dict.fromkeys(VISITS, "COMPLETE") | {("A-01", "V2"): "WITHHELD"}
    assert [one["name"] for one in audit["signatures"]] == ["Ada Lovelace", "Benjamin Peirce"]


def test_the_audit_finds_exactly_what_was_done_to_the_images(received):
    swapped = received.folder / "sent/B-01-V1/examples_palette.dcm"
    dataset = pydicom.dcmread(swapped)
    dataset.PatientID = dataset.PatientName = "A-01"
    dataset.save_as(swapped)
    edited = received.folder / "sent/A-01-V1/CT_small.dcm"
    dataset = pydicom.dcmread(edited)
    pixels = dataset.pixel_array.copy()
    pixels[40:60, 40:60] = pixels.min()
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(edited)
    (received.folder / "sent/B-01-V2/examples_rgb_color.dcm").unlink()
    copy_test_file("JPEG2000.dcm", received.folder / "sent/extra")
    (received.folder / "sent/extra/broken.dcm").write_bytes(edited.read_bytes()[:2000])
    shutil.copy(received.folder / "sent/A-01-V1/MR_small.dcm", received.folder / "sent/extra/twice.dcm")
    audit = received.json(*RUN, expect=1, env=NO_SITE)
    assert kinds(audit) == [
        ("duplicate_image", "A-01", "V1"),
        ("image_not_in_order", "A-01", "V1"),
        ("image_not_in_order", "B-01", "V1"),
        ("missing_image", "B-01", "V2"),
        ("not_checked", None, None),
        ("unexpected_image", None, None),
        ("withheld_counter", "A-01", "V2"),
    ]
    named = {found["verdict"] for found in audit["findings"] if found["kind"] == "image_not_in_order"}
    assert named == {"ALTERED", "MISMATCH"}
    (mismatch,) = [found for found in audit["findings"] if found["verdict"] == "MISMATCH"]
    assert "PatientID" in mismatch["detail"]


def test_a_run_goes_on_where_it_stopped_and_another_audits_workbook_is_refused(received):
    first = received.json(*RUN, expect=5, env=NO_SITE)
    assert received.json(*RUN, expect=5, env=NO_SITE) == first
    shutil.rmtree(received.folder / "sent/A-01-V1")
    again = received.json(*RUN, expect=5, env=NO_SITE)
    assert (again["images"], first["images"]) == ({"DERIVED": 5}, {"DERIVED": 7})
    assert kinds(again).count(("missing_image", "A-01", "V1")) == 2
    policy = (received.folder / "trust.toml").read_text().replace("approvals = 2", "approvals = 3")
    (received.folder / "trust.toml").write_text(policy)
    refused = received.run(*RUN, expect=2, env=NO_SITE)
    assert "another audit" in refused.stderr
    audit = received.json(*RUN, "--workbook", "b.sqlite", expect=5, env=NO_SITE)
    assert ("manifest_open", None, None) in kinds(audit)


@pytest.mark.parametrize("damage", ["line", "cut", "other", "none", "binary"])
def test_a_list_that_was_not_signed_so_is_no_list(received, damage):
    path = received.folder / "out/manifest.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    if damage == "line":
        path.write_bytes(b"".join(lines[:-1]))
    elif damage == "cut":
        path.write_bytes(b"".join(lines)[:-10])
    elif damage == "other":
        path.write_bytes(lines[0].replace(b"ABC-301", b"ABC-302") + b"".join(lines[1:]))
    elif damage == "none":
        (received.folder / "out/evidence/manifest.seal.json").unlink()
    else:
        path.write_bytes(b"\xff\xfe\0{}")
    done = received.run(*RUN, expect=7, env=NO_SITE)
    assert "manifest" in done.stderr


@pytest.mark.parametrize("lang", ["en", "fr"])
def test_the_report_says_the_same_in_each_format_and_hides_what_a_reader_may_not_know(received, lang):
    received.json(*RUN, expect=5, env=NO_SITE)
    received.run("audit", "report", "-o", "report", "--lang", lang, env=NO_SITE)
    files = {path.name: path.read_bytes() for path in (received.folder / "report").iterdir()}
    assert {"report.html", "report.pdf", "report.json", "images.csv", "findings.csv"} <= files.keys()
    assert json.loads(files["report.json"])["verdict"] == "WITHHELD"
    assert b"WITHHELD" in files["report.html"]
    assert b"withheld" in files["findings.csv"]
    received.run("audit", "report", "-o", "reader", "--lang", lang, "--for", "reader", env=NO_SITE)
    for path in (received.folder / "reader").iterdir():
        if path.name != "report.schema.json":
            assert b"WITHHELD" not in path.read_bytes(), path.name


def test_a_pack_verifies_on_a_machine_with_nothing_but_the_images(received, tmp_path_factory):
    received.json(*RUN, expect=5, env=NO_SITE)
    received.run("audit", "report", "-o", "report", env=NO_SITE)
    packed = ("audit", "pack", "-m", "out", "--trust", "trust.toml", "--report", "report", "-o", "pack.zip")
    received.run(*packed, env=NO_SITE)
    received.run(*packed, env=NO_SITE, expect=2)
    later = tmp_path_factory.mktemp("later")
    with zipfile.ZipFile(received.folder / "pack.zip") as archive:
        archive.extractall(later)
    shutil.copytree(received.folder / "sent", later / "images")
    machine = Site(later, 0)
    evidence = ("--bundle", "evidence", "--trust", "trust.toml", "--offline")
    found = machine.json("verify", "images", *evidence, env=NO_SITE)
    assert {image["verdict"] for image in found["images"]} == {"DERIVED"}
    named = ("-m", "manifest.jsonl", "-i", "images", "--evidence", "evidence", "--trust", "trust.toml", "--offline")
    assert machine.json("audit", "run", *named, expect=5, env=NO_SITE)["verdict"] == "WITHHELD"
    (later / "evidence" / "0000.seal.json").write_bytes((later / "evidence" / "0000.seal.json").read_bytes()[:-100])
    machine.run("verify", "images", *evidence, env=NO_SITE, expect=7)


def test_a_transmittal_verifies_without_keeping_anything(received):
    done = received.run(
        "transmittal", "verify", "out", "--images", "sent", "--trust", "trust.toml", "--offline", expect=5, env=NO_SITE
    )
    assert "WITHHELD" in done.stdout
    assert not list(received.folder.glob("*.sqlite"))


def heartbeat(site: Site, *arguments: str) -> dict:
    return site.json("trial", "heartbeat", "ABC-301", *arguments)


def send_heartbeats(trial: Site, received: Site, *beats: dict) -> None:
    trial.run("anchor")
    for beat in beats:
        trial.run("transmittal", "export", beat["folder"])
    policy = "\n[policy]\napprovals = 2\n"
    trial.run("trust", "update", "--bundle", f"{beats[-1]['folder']}/evidence")
    (received.folder / "trust.toml").write_text((trial.folder / "trust.toml").read_text() + policy)


def withheld(received: Site, *beats: dict) -> list[tuple]:
    also = [part for beat in beats for part in ("--also", beat["folder"])]
    audit = received.json(*RUN, *also, "--workbook", f"{len(beats)}.sqlite", expect=5, env=NO_SITE)
    assert {one["kind"] for one in audit["findings"]} == {"withheld_counter"}
    return [(one["visit"], one["parameters"]["counter"]) for one in audit["findings"]]


def test_a_heartbeat_tells_of_a_scan_after_the_last_list(trial, received):
    """The site scans once more when all its lists are signed: nothing tells it, but the scanner's own heartbeat."""
    nothing = heartbeat(trial, "--device", "gwb", "--account", "ctb", "--others", "all")
    assert (nothing["images"], nothing["counters"]) == (0, {})
    first = heartbeat(trial, "--device", "cta")
    assert len(first["counters"]["cta"]) == 5
    copy_test_file("JPEG2000.dcm", trial.folder / "scanned/late")
    trial.run("seal", "scanned/late", "--device", "cta")
    second = heartbeat(trial, "--device", "cta")
    late = first["counters"]["cta"][-1] + 2
    assert second["counters"] == {"cta": [late]}, "the list's own record is no image"
    assert heartbeat(trial, "--device", "cta")["counters"] == {}
    send_heartbeats(trial, received, nothing, first, second)
    (known,) = withheld(received)
    refused = received.run(*RUN, "--also", nothing["folder"], "--workbook", "x.sqlite", expect=7, env=NO_SITE)
    assert "approvals" in refused.stderr, "counters are excused by a list that persons approved, or not at all"
    for person in ("ada", "ben"):
        trial.run("esign", f"{nothing['folder']}/manifest.jsonl", "--as", person, "--meaning", "approved")
    send_heartbeats(trial, received, nothing, first, second)
    assert withheld(received, nothing, first) == [known]
    assert sorted(withheld(received, nothing, first, second), key=str) == sorted([known, (None, str(late))], key=str)


def test_a_heartbeat_names_the_visit_of_a_scan_that_no_list_has(trial, received):
    """And where a heartbeat on the way from the scanner is missing, that shows, too."""
    of_visit = ("--subject", "A-01", "--visit", "V2")
    refused = trial.run("trial", "heartbeat", "ABC-301", "scanned/A-01-V2", "--device", "cta", expect=2)
    assert "--subject" in refused.stderr
    trial.run("trial", "heartbeat", "ABC-301", "--subject", "A-01", "--device", "cta", expect=2)
    trial.run("trial", "heartbeat", "ABC-301", "--device", "ada", expect=2)
    beat = heartbeat(trial, "scanned/A-01-V2", *of_visit, "--device", "gwa")
    assert beat["images"] == 2
    for person in ("ada", "ben"):
        trial.run("esign", f"{beat['folder']}/manifest.jsonl", "--as", person, "--meaning", "approved")
    send_heartbeats(trial, received, beat)
    (known,) = withheld(received)
    found = withheld(received, beat)
    assert [one for one in found if one[0] is not None] == [known], "the scan is told of once"
    sent_before = list((trial.folder / "trials/ABC-301/heartbeats").glob("*"))[:-1]
    assert (len(found) > 1) == bool(sent_before)
