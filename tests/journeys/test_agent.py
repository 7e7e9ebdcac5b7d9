"""From a modality through the agent into the PACS, and back by every way that a reader has: each copy verifies.

Three PACS, as hospitals have them: an Orthanc that keeps what it gets, one that transcodes on ingest, and DCMTK's dcmqrscp.
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import JPEGLSLossless

from tests.agent.modality import images, instance
from tests.journeys.agents import Agent, destination, dicom_source, running, store, until
from tests.journeys.conftest import Site, add_device, free_port, make_site
from tests.journeys.orthanc import Orthanc, orthanc

DICOM_WEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
TCP = os.environ | {"TCP_NODELAY": "1"}
TOOLS = {
    "C-GET": ("getscu", "-S", "-aet", "READER", "-aec", "ORTHANC", "-od"),
    "C-MOVE": ("movescu", "-S", "-aet", "READER", "-aec", "ORTHANC", "-aem", "READER", "-od"),
}


@dataclass
class Hospital:
    site: Site
    agent: Agent
    ports: dict[str, int]
    """source -> port of the agent."""
    kept: Orthanc
    transcoded: Orthanc
    plain: int
    """dcmqrscp's port; what it has lies in `plain_folder`."""
    plain_folder: Path
    reader: int
    tls: Path

    def sent(self, source: str, count: int = 2, first: int = 0) -> list[Path]:
        """New images, sent by storescu to a source; they are in the PACS, and final on chain."""
        made = images(count, self.site.folder / f"made-{source}", first)
        done = store(self.ports[source], *made)
        assert done.returncode == 0, done.stderr
        return made

    def until_final(self, made: list[Path]) -> None:
        """The images are in the PACS, and final on chain."""
        until(lambda: self.agent.status()["forward"].get("waiting", 0) == 0, "the images in the PACS")
        until(lambda: set(self.site.verdicts(*made, expect=None).values()) == {"AUTHENTIC"}, "the anchor", 90)


@contextmanager
def dcmqrscp(folder: Path) -> Iterator[int]:
    """DCMTK's PACS, which keeps files as they came."""
    port, held = free_port(), folder / "held"
    held.mkdir(parents=True)
    (folder / "dcmqrscp.cfg").write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\nHostTable BEGIN\nHostTable END\n"
        f"VendorTable BEGIN\nVendorTable END\nAETable BEGIN\nORTHANC {held} RW (200, 1024mb) ANY\nAETable END\n"
    )
    process = subprocess.Popen(["dcmqrscp", "-c", str(folder / "dcmqrscp.cfg")], env=TCP)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(20)


def certificates(folder: Path) -> Path:
    """An authority, the agent's certificate and a modality's, and one that another authority issued."""
    folder.mkdir()
    for authority in ("ca", "other"):
        openssl(
            folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={authority}",
            "-keyout", f"{authority}.key", "-out", f"{authority}.pem",
        )  # fmt: skip
    for name, authority in (("agent", "ca"), ("modality", "ca"), ("stranger", "other")):
        openssl(folder, "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", "r")
        (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
        openssl(
            folder, "x509", "-req", "-in", "r", "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-days", "2",
            "-extfile", "names", "-out", f"{name}.pem",
        )  # fmt: skip
    return folder


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    folder = tmp_path_factory.mktemp("hospital")
    site = make_site(folder / "site")
    with (site.folder / "site.toml").open("a") as file:
        file.write("\n[anchoring]\ninterval_s = 1\n")
    add_device(site, "ct1", "secp256k1", "4711")
    reader, tls = free_port(), certificates(folder / "tls")
    with ExitStack() as stack:
        stack.callback(site.run, "devnet", "down", expect=None)
        modalities: dict[str, list[object]] = {"reader": ["READER", "127.0.0.1", reader]}
        kept = stack.enter_context(orthanc(folder / "kept", modalities, Plugins=[str(DICOM_WEB)], DicomAlwaysAllowGet=True))
        transcoded = stack.enter_context(orthanc(folder / "transcoded", IngestTranscoding=str(JPEGLSLossless)))
        plain = stack.enter_context(dcmqrscp(folder / "plain"))
        ports = {name: free_port() for name in ("ct", "ct_j", "ct_q", "ct_tls")}
        secure = f'tls = {{ certificate = "{tls}/agent.pem", key = "{tls}/agent.key", client_ca = "{tls}/ca.pem" }}\n'
        settings = (
            dicom_source("ct", ports["ct"])
            + dicom_source("ct_j", ports["ct_j"], destination="transcoding")
            + dicom_source("ct_q", ports["ct_q"], destination="plain")
            + dicom_source("ct_tls", ports["ct_tls"])
            + secure
            + destination(kept)
            + destination(transcoded, "transcoding")
            + destination(plain, "plain")
        )
        agent = stack.enter_context(running(site, settings))
        yield Hospital(site, agent, ports, kept, transcoded, plain, folder / "plain" / "held", reader, tls)


def assert_authentic(hospital: Hospital, folder: Path, made: list[Path]) -> None:
    """A copy of each image is in the folder, and each is AUTHENTIC; a copy that was edited is not."""
    copies = [path for path in folder.rglob("*") if path.is_file() and path.name != "index.dat"]
    assert sorted(map(instance, copies)) == sorted(map(instance, made))
    assert set(hospital.site.verdicts(*copies).values()) == {"AUTHENTIC"}
    edited = pydicom.dcmread(copies[0])
    pixels = edited.pixel_array.copy()
    pixels[0, 0] += 1
    edited.PixelData = pixels.tobytes()
    edited.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    edited["PixelData"].is_undefined_length = False
    edited.save_as(folder / "edited.dcm")
    assert hospital.site.verdicts(folder / "edited.dcm", expect=1) == {"edited.dcm": "ALTERED"}


@pytest.fixture(scope="module")
def stored(hospital: Hospital) -> list[Path]:
    """Images of one study that went through the agent into Orthanc."""
    made = hospital.sent("ct")
    hospital.until_final(made)
    return made


@pytest.mark.parametrize("way", TOOLS)
def test_what_a_reader_gets_back_by_dimse_is_authentic(
    hospital: Hospital, stored: list[Path], tmp_path: Path, way: str
) -> None:
    study = str(pydicom.dcmread(stored[0]).StudyInstanceUID)
    more = ("+P", str(hospital.reader)) if way == "C-MOVE" else ()
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}")
    command = [*TOOLS[way], str(tmp_path), *more, *keys, "127.0.0.1", str(hospital.kept.dicom_port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=TCP)
    assert done.returncode == 0, done.stderr
    assert_authentic(hospital, tmp_path, stored)


def test_what_a_reader_gets_back_by_wado_rs_is_authentic(hospital: Hospital, stored: list[Path], tmp_path: Path) -> None:
    study = str(pydicom.dcmread(stored[0]).StudyInstanceUID)
    request = urllib.request.Request(
        f"{hospital.kept.url}/dicom-web/studies/{study}",
        headers={"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        head = f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode()
        parts = message_from_bytes(head + answer.read()).get_payload()
    for number, part in enumerate(parts):
        (tmp_path / f"{number}.dcm").write_bytes(part.get_payload(decode=True))
    assert_authentic(hospital, tmp_path, stored)


def test_what_the_modality_sent_is_found_in_the_pacs(hospital: Hospital, stored: list[Path]) -> None:
    study = str(pydicom.dcmread(stored[0]).StudyInstanceUID)
    keys = ("-k", "QueryRetrieveLevel=IMAGE", "-k", f"StudyInstanceUID={study}", "-k", "SOPInstanceUID")
    command = ["findscu", "-S", "-aet", "READER", "-aec", "ORTHANC", *keys, "127.0.0.1", str(hospital.kept.dicom_port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=TCP)
    assert all(instance(path) in done.stdout + done.stderr for path in stored)


def test_what_a_pacs_transcoded_is_authentic(hospital: Hospital, tmp_path: Path) -> None:
    made = hospital.sent("ct_j", first=100)
    hospital.until_final(made)
    for number, one in enumerate(json.loads(hospital.transcoded.call("/instances"))):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(hospital.transcoded.call(f"/instances/{one}/file"))
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == JPEGLSLossless
    assert_authentic(hospital, tmp_path, made)


def test_what_dcmqrscp_kept_is_authentic(hospital: Hospital, tmp_path: Path) -> None:
    made = hospital.sent("ct_q", first=200)
    hospital.until_final(made)
    copied = tmp_path / "copied"
    copied.mkdir()
    until(lambda: len(list(hospital.plain_folder.iterdir())) > len(made), "the files of dcmqrscp")
    for path in hospital.plain_folder.iterdir():
        if path.name != "index.dat":
            (copied / path.name).write_bytes(path.read_bytes())
    assert_authentic(hospital, copied, made)


def test_only_a_modality_with_a_certificate_of_the_authority_sends_over_tls(hospital: Hospital) -> None:
    made = images(1, hospital.site.folder / "made-tls", 300)

    def send(name: str | None) -> int:
        key = () if name is None else ("+tls", f"{hospital.tls}/{name}.key", f"{hospital.tls}/{name}.pem")
        believed = () if name is None else ("+cf", f"{hospital.tls}/ca.pem")
        command = ["storescu", "-aec", "SCANSEAL", "-aet", "STORESCU", *key, *believed]
        command += ["127.0.0.1", str(hospital.ports["ct_tls"]), str(made[0])]
        return subprocess.run(command, capture_output=True, timeout=60, env=TCP).returncode

    assert send(None) != 0
    assert send("stranger") != 0
    assert send("modality") == 0
    hospital.until_final(made)


def test_who_is_not_on_the_list_sends_nothing(hospital: Hospital) -> None:
    made = images(1, hospital.site.folder / "made-foreign", 400)
    refused = store(hospital.ports["ct"], *made, calling="CT9")
    assert refused.returncode != 0
    assert "Calling AE Title Not Recognized" in refused.stderr
    assert hospital.site.verdicts(*made, expect=3) == {path.name: "UNREGISTERED" for path in made}
