"""Nothing of a patient comes out of the agent but to the PACS: not in a log, a status, a metric, an error or a log entry.

The agent's parts in one process, with real sockets and files, fed by hypothesis. A journey (test_monitoring.py) does the
same with a running agent and its commands.
"""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.dsutils import encode

from ledger.agent import dimse
from ledger.agent.agent import Agent, Refusals
from ledger.agent.association import Association
from ledger.agent.association import Peer as Pacs
from ledger.agent.commitment import Commitment, Route
from ledger.agent.folders import Folder, Watcher
from ledger.agent.forwarding import Forwarder
from ledger.agent.health import HealthServer
from ledger.agent.receiver import Listener, Peer, Receiver
from ledger.agent.sealing import SealingWorker
from ledger.agent.spool import Spool, reason
from ledger.core.certificates import Device
from ledger.core.errors import ScanSealError, TryLater
from ledger.core.typeddata import Domain
from ledger.keys.signers import new_key
from ledger.register import Sealer
from ledger.store import open_store
from ledger.store.anchors import AnchorStore
from ledger.store.journal import JournalStore
from ledger.store.spool import SpoolStore
from ledger.wiring import logs
from ledger.wiring.agent import Running
from ledger.wiring.agent_seals import Acquirer, AgentSeals
from ledger.wiring.gateway import Receiving
from tests.agent import private
from tests.agent.modality import MAKER, stripped
from tests.agent.private import MALFORMED, PATIENTS, Patient, leaks
from tests.journeys.conftest import free_port
from tests.simulators.pacs import pacs

FAULTS = ("cannot understand", "aborts", "out of resources", None)


class SeenBlock:
    """Duties of `ledger.wiring.beacons.Beacons` where the chain has been seen once, and objects to nothing."""

    def __init__(self, anchors: AnchorStore) -> None:
        from ledger.core.contracts import Beacon

        self._beacon = Beacon(7, b"\7" * 32)

    def current(self):
        return self._beacon, int(time.time())

    def require(self, key, needed) -> None:
        pass


@contextmanager
def logged() -> Iterator[io.StringIO]:
    """What the agent's processes write on standard error, with all that they install for it."""
    root, hooks = logging.getLogger(), (threading.excepthook, sys.excepthook, sys.unraisablehook)
    before = (root.handlers[:], root.level, logging.raiseExceptions)
    written = io.StringIO()
    with redirect_stderr(written):
        logs.configure()
        try:
            yield written
        finally:
            logging.captureWarnings(False)
            threading.excepthook, sys.excepthook, sys.unraisablehook = hooks
            root.handlers[:], logging.raiseExceptions = before[0], before[2]
            root.setLevel(before[1])


class Parts:
    """All of an agent's parts but its processes. The folder source and the port acquire, with a gateway's key for the rest."""

    def __init__(self, folder: Path, pacs_port: int) -> None:
        self.folder = folder
        self.store = open_store(folder / "store.sqlite")
        self.journal, anchors = JournalStore(self.store), AnchorStore(self.store)
        self.refusals = Refusals()
        self.spool = Spool(folder / "spool", SpoolStore(self.store), 0, 0.0)
        allow = (Peer(None, "127.0.0.1"),)
        peer = Pacs("pacs", "127.0.0.1", pacs_port, "ORTHANC", "SCANSEAL", timeout_s=2.0)
        self.commitment = Commitment((Route("ct", peer, peer),), self.spool, self.refusals.say)
        self.commitment.start()
        listener = Listener("ct", "127.0.0.1", 0, "SCANSEAL", allow, True)
        self.receiver = Receiver(listener, self.spool, self.refusals.count, self.commitment.handlers("ct"))
        (folder / "export").mkdir()
        self.watcher = Watcher(Folder("export", folder / "export", True, 0.0, True), self.spool, self.refusals.say)
        self.forwarder = Forwarder(peer, ["ct", "export"], self.spool, self.refusals.say)
        domain, beacons = Domain(31337, b"\1" * 20), SeenBlock(anchors)
        device, gateway = (Sealer(self.journal, new_key("secp256k1"), domain, time.time) for _ in range(2))
        seals = AgentSeals(
            Acquirer(device, Device(*MAKER, "CT1", "Hospital")),
            Receiving(gateway, self.journal, beacons, "sha256"),
            beacons,
            "sha256",
        )
        self.sealing = SealingWorker(["ct", "export"], seals, self.spool, self.refusals.say)
        agent = Agent(self.spool, [], [], lambda source: True)
        agent.started = time.time()
        running = Running("Hospital", agent, self.spool, self.refusals, (), {"ct": self.receiver})
        self.health = HealthServer("127.0.0.1", 0, running.health)
        self.port = self.receiver.start()
        self.health.start()
        self.errors: list[str] = []

    def told(self) -> dict[str, bytes]:
        """What it tells monitors, and what it would hand to a log."""
        answers = {}
        for path in ("status", "healthz", "metrics"):
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health.port}/{path}", timeout=10) as answer:
                answers[path] = answer.read()
        answers["log entries"] = b"".join(self.journal.queued_entries(10_000))
        details = [f"{file.name} {file.detail}" for file in self.spool.book.kept()]
        answers["the spool's book"] = "\n".join(details).encode()
        answers["names of files"] = private.folder_names(self.folder, ("export/",))
        answers["errors"] = "\n".join(self.errors).encode()
        return answers

    def tried(self, attempt: Callable[[], object]) -> None:
        """An error that is one of ours is shown to somebody as it is."""
        try:
            attempt()
        except ScanSealError as error:
            self.errors.append(str(error))

    def stop(self) -> None:
        self.health.stop()
        self.commitment.stop()
        self.receiver.stop()
        self.store.close()


def ask(port: int, patient: Patient) -> None:
    """For storage commitment, with the patient's number where a UID belongs."""
    question = Dataset()
    question.add(DataElement(0x00081195, "LO", f"{patient.number}^{patient.family}"))
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = private.STORABLE, f"{patient.uid_root}.1"
    question.ReferencedSOPSequence = [item]
    context = (dimse.COMMITMENT, dimse.IMPLICIT_LITTLE)
    association = Association(Pacs("agent", "127.0.0.1", port, "SCANSEAL", patient.ae_title, timeout_s=5.0), [context])
    elements = {0x0003: dimse.ui(dimse.COMMITMENT), 0x0100: dimse.us(dimse.N_ACTION), 0x0800: dimse.us(dimse.DATA_SET)}
    elements |= {0x1001: dimse.ui("1.2.840.10008.1.20.1.1"), 0x1008: dimse.us(1)}
    association._asked(association.accepted[context], elements, encode(question, True, True) or b"")
    association.release()


def send(port: int, patient: Patient, data: bytes, called: str, instance: str) -> None:
    """As a modality that has a patient's number for its AE title."""
    peer = Pacs("agent", "127.0.0.1", port, called, patient.ae_title, timeout_s=5.0)
    context = (private.STORABLE, ExplicitVRLittleEndian)
    try:
        association = Association(peer, [context])
        association.store(context, instance, data)
        association.release()
    except TryLater:
        pass  # that is the modality's error


def feed(parts: Parts, patient: Patient, wrong: Sequence[str], number: int) -> None:
    own, foreign = private.image(patient, MAKER, 2 * number), private.image(patient, (patient.family, "X", "1"), 2 * number + 1)
    files = [private.written(own), private.written(foreign), *(MALFORMED[one](patient, own) for one in wrong)]
    folder = parts.folder / "export" / patient.family
    folder.mkdir(exist_ok=True)
    for index, data in enumerate(files):
        (folder / f"{index} {patient.file_name}").write_bytes(data)
        instance = (
            str(own.SOPInstanceUID) if index else f"{patient.number}^{patient.family}".encode("ascii", "replace").decode()
        )
        send(parts.port, patient, stripped(data) if data[128:132] == b"DICM" else data, "SCANSEAL", instance)
    send(parts.port, patient, b"", patient.ae_title, "1.2.3")
    ask(parts.port, patient)
    # What the watcher does when its folder is something else: the path is the modality's.
    parts.tried(lambda: Watcher(Folder("gone", folder / "0", True), parts.spool, parts.refusals.say).look())
    parts.watcher.look()
    parts.watcher.look()


def test_nothing_of_a_patient_comes_out_of_the_agents_parts(tmp_path, capfd):
    with pacs(free_port()) as archive, logged() as written:
        parts, seen = Parts(tmp_path, archive.port), []
        parts.forwarder.start()
        parts.sealing.start()
        numbers = iter(range(1000))

        @settings(max_examples=5, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(PATIENTS, st.permutations(sorted(MALFORMED)), st.sampled_from(FAULTS))
        def feed_one(patient: Patient, wrong: Sequence[str], fault: str | None) -> None:
            assert leaks([patient], private.control(patient)), "the search finds nothing"
            seen.append(patient)
            archive.fault = fault
            feed(parts, patient, wrong, next(numbers))

        try:
            feed_one()
            deadline = time.monotonic() + 30
            while parts.spool.book.counts().of("seal", "waiting") and time.monotonic() < deadline:
                parts.spool.book.hurry()
                parts.forwarder.wake.set()
                time.sleep(0.1)
            told = parts.told()
        finally:
            parts.forwarder.stop()
            parts.sealing.stop()
            parts.stop()
        states = {key for key, count in parts_states(told).items() if count}
    out, err = capfd.readouterr()
    told |= {"log": written.getvalue().encode(), "standard output": out.encode(), "standard error": err.encode()}
    assert {"sealed", "refused"} <= states
    assert parts.refusals.counts()
    assert not leaks(seen, told)


def parts_states(told: dict[str, bytes]) -> dict[str, int]:
    return json.loads(told["status"])["seal"]


@settings(max_examples=30, deadline=None, database=None)
@given(PATIENTS)
def test_the_search_finds_a_patient_in_each_way_that_one_comes_out(patient: Patient):
    for where, data in private.control(patient).items():
        assert leaks([patient], {where: data}), where
    assert not leaks([patient], {"nothing": b"nothing of anybody"})


@pytest.mark.parametrize("what", sorted(MALFORMED))
def test_each_malformed_image_carries_the_patient_where_it_is_wrong(what: str):
    patient = Patient("Xqmüller", "Xqanna", "山田太", "PQ1234567890", "19610214", "Z9876543210")
    data = MALFORMED[what](patient, private.image(patient, MAKER))
    assert leaks([patient], {what: data})


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied", "/export/Xqmüller.dcm"),
        ValueError("Xqmüller"),
        KeyError("Xqmüller"),
        OSError("Xqmüller"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_others_say_in_an_error_is_not_repeated(error: Exception):
    assert "Xqmüller" not in reason(error)
