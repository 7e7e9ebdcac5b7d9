"""Storage commitment passes through the agent to a real Orthanc and back, and nothing of it is lost when the agent dies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import CTImageStorage, StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from ledger.agent import commitment
from ledger.agent.association import Peer as Pacs
from ledger.agent.commitment import Commitment, Route
from ledger.agent.forwarding import Forwarder
from ledger.agent.receiver import Listener, Peer, Receiver
from ledger.agent.spool import Spool
from ledger.store import open_store
from ledger.store.spool import SpoolStore
from tests.journeys.conftest import free_port
from tests.journeys.orthanc import Orthanc, orthanc

CT = "CT1"


class Modality:
    """A modality that stores and asks for commitment, and keeps the reports that it gets."""

    def __init__(self) -> None:
        self.port, self.reports = free_port(), []
        entity = AE(ae_title=CT)
        entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        handlers = [(evt.EVT_N_EVENT_REPORT, self._report)]
        self._server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def _report(self, event: Any) -> tuple[int, None]:
        self.reports.append((event.event_type, event.event_information))
        return 0x0000, None

    def send(self, port: int, *images: Dataset) -> None:
        association = self._associated(port, CTImageStorage)
        for image in images:
            assert association.send_c_store(image).Status == 0
        association.release()

    def ask(self, port: int, *instances: str) -> str:
        """The transaction UID of a question about these instances."""
        asked = Dataset()
        asked.TransactionUID = generate_uid()
        asked.ReferencedSOPSequence = []
        for instance in instances:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, instance
            asked.ReferencedSOPSequence.append(item)
        association = self._associated(port, StorageCommitmentPushModel)
        status, _ = association.send_n_action(asked, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
        assert status.Status == 0
        association.release()
        return str(asked.TransactionUID)

    def _associated(self, port: int, context: str) -> Any:
        entity = AE(ae_title=CT)
        entity.add_requested_context(context)
        association = entity.associate("127.0.0.1", port, ae_title="SCANSEAL", ext_neg=[build_role(context, scu_role=True)])
        assert association.is_established
        return association

    def stop(self) -> None:
        self._server.shutdown()


class Agent:
    """Receiver, forwarder and commitment on one spool."""

    def __init__(
        self, folder: Path, port: int, modality: Modality, pacs: Orthanc | HastyPacs, *, forwards: bool = True
    ) -> None:
        self.store = open_store(folder / "store.sqlite")
        spool = Spool(folder / "spool", SpoolStore(self.store), 0, 3600)
        to_pacs = Pacs("pacs", "127.0.0.1", pacs.dicom_port, "ORTHANC", "SCANSEAL", None, 10.0)
        to_modality = Pacs("the modality", "127.0.0.1", modality.port, CT, "SCANSEAL", None, 10.0)
        self.said: list[str] = []
        self.commitment = Commitment((Route("ct1", to_modality, to_pacs),), spool, lambda part, word: self.said.append(word))
        listener = Listener("ct1", "127.0.0.1", port, "SCANSEAL", (Peer(CT),), True, reporters=(Peer("ORTHANC"),))
        self.receiver = Receiver(listener, spool, lambda source, word: None, self.commitment.handlers("ct1"))
        self.forwarder = Forwarder(to_pacs, ["ct1"], spool, lambda part, word: None)
        spool.wakes.append(self.forwarder.wake.set)
        self.parts = [self.commitment, *([self.forwarder] if forwards else []), self.receiver]
        for part in self.parts:
            part.start()

    def stop(self) -> None:
        for part in reversed(self.parts):
            part.stop()
        self.store.close()


@pytest.fixture
def modality() -> Iterator[Modality]:
    one = Modality()
    yield one
    one.stop()


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def pacs(tmp_path: Path, port: int) -> Iterator[Orthanc]:
    with orthanc(tmp_path / "orthanc", modalities={"agent": ["SCANSEAL", "127.0.0.1", port]}) as running:
        yield running


def image() -> Dataset:
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    return dataset


def until(holds: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_a_question_reaches_the_pacs_after_the_images_and_its_report_comes_back(tmp_path, modality, pacs, port):
    agent = Agent(tmp_path, port, modality, pacs)
    try:
        images = [image() for _ in range(3)]
        modality.send(port, *images)
        transaction = modality.ask(port, *(one.SOPInstanceUID for one in images))
        until(lambda: modality.reports)
        ((kind, report),) = modality.reports
        assert (kind, report.TransactionUID) == (1, transaction)
        assert {one.ReferencedSOPInstanceUID for one in report.ReferencedSOPSequence} == {one.SOPInstanceUID for one in images}
        until(lambda: not list((tmp_path / "spool/commitments").glob("*.json")))
    finally:
        agent.stop()


def test_what_the_pacs_does_not_have_is_reported_as_failed(tmp_path, modality, pacs, port):
    agent = Agent(tmp_path, port, modality, pacs)
    try:
        modality.ask(port, generate_uid())
        until(lambda: modality.reports)
        ((kind, report),) = modality.reports
        assert kind == 2
        assert len(report.FailedSOPSequence) == 1
    finally:
        agent.stop()


def test_a_question_survives_the_agent_and_waits_for_the_images_to_be_forwarded(tmp_path, modality, pacs, port):
    agent = Agent(tmp_path, port, modality, pacs, forwards=False)
    one = image()
    modality.send(port, one)
    modality.ask(port, one.SOPInstanceUID)
    time.sleep(2.5)
    assert not modality.reports, "the PACS was asked before it had the image"
    agent.stop()
    agent = Agent(tmp_path, port, modality, pacs)
    try:
        until(lambda: modality.reports)
        assert modality.reports[0][0] == 1
    finally:
        agent.stop()


def test_the_pacs_may_report_and_not_store(tmp_path, modality, pacs, port):
    agent = Agent(tmp_path, port, modality, pacs)
    try:
        entity = AE(ae_title="ORTHANC")
        entity.add_requested_context(CTImageStorage)
        association = entity.associate("127.0.0.1", port, ae_title="SCANSEAL")
        assert association.is_established
        assert association.send_c_store(image()).Status == 0x0124
        association.release()
        assert not list((tmp_path / "spool/incoming").iterdir())
    finally:
        agent.stop()


class HastyPacs:
    """A PACS that reports, on an association of its own, before it answers the question; `silent` times it reports nothing."""

    def __init__(self, port: int, silent: int = 0) -> None:
        self.dicom_port, self._agent, self._silent, self.asked = free_port(), port, silent, 0
        entity = AE(ae_title="ORTHANC")
        entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        handlers = [(evt.EVT_N_ACTION, self._action)]
        self._server = entity.start_server(("127.0.0.1", self.dicom_port), block=False, evt_handlers=handlers)

    def _action(self, event: Any) -> tuple[int, None]:
        self.asked += 1
        if self.asked <= self._silent:
            return 0x0000, None
        report = Dataset()
        report.TransactionUID = event.action_information.TransactionUID
        report.ReferencedSOPSequence = event.action_information.ReferencedSOPSequence
        entity = AE(ae_title="ORTHANC")
        entity.add_requested_context(StorageCommitmentPushModel)
        roles = [build_role(StorageCommitmentPushModel, scp_role=True)]
        association = entity.associate("127.0.0.1", self._agent, ae_title="SCANSEAL", ext_neg=roles)
        told, _ = association.send_n_event_report(report, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
        assert told.Status == 0
        association.release()
        return 0x0000, None

    def stop(self) -> None:
        self._server.shutdown()


@pytest.mark.parametrize("silent", [0, 1])
def test_a_pacs_may_report_before_it_answers_and_one_that_never_does_is_asked_again(
    tmp_path, modality, port, monkeypatch, silent
):
    monkeypatch.setattr(commitment, "AGAIN_AFTER_S", 1.0)
    hasty = HastyPacs(port, silent)
    agent = Agent(tmp_path, port, modality, hasty)
    try:
        modality.ask(port, generate_uid())
        until(lambda: modality.reports)
        assert hasty.asked == silent + 1
        until(lambda: not list((tmp_path / "spool/commitments").glob("*.json")))
        assert agent.said == []
    finally:
        agent.stop()
        hasty.stop()
