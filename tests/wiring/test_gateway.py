"""What a gateway signs of what came to it: a step where a record of the image is here, else that it held it, each once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from ledger.core.custody import transferred
from ledger.core.records import CustodyRecord, GatewayRecord, Record
from ledger.core.stateproof import parse_header
from ledger.dicom import Image, read
from ledger.keys.signers import new_key
from ledger.register import Claim, Sealer
from ledger.store import Store, open_store
from ledger.store.anchors import AnchorStore
from ledger.store.journal import JournalStore
from ledger.store.redaction import RedactionStore
from ledger.store.spool import Sealing
from ledger.wiring.beacons import Beacons
from ledger.wiring.custody import Holdings
from ledger.wiring.gateway import Receiving
from ledger.wiring.images import sealable
from tests.simulators.ledger import World

EXAMPLE = Path(__file__).parents[2] / "docs/example/image.dcm"


class Gateway:
    """A site with a scanner's key and a gateway's, on a disk of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = World()
        self.store: Store = open_store(folder / "store.db")
        self.journal, anchors = JournalStore(self.store), AnchorStore(self.store)
        header = self.world.headers[self.world.beacon_block]
        self.beacons = Beacons(
            self.world.trust(), (), anchors, {}, self.journal, None, newest=lambda: (parse_header(header), header)
        )
        self.beacons.look()
        self.scanner, self.sealer = (
            Sealer(self.journal, new_key("p256"), self.world.domain, lambda: self.beacons.current()[1]) for _ in range(2)
        )

    def receive(self, *images: Image) -> list[Sealing]:
        """As an agent that has just started would."""
        return Receiving(self.sealer, self.journal, self.beacons, "sha256").receive(list(enumerate(images)))

    def records(self, outcomes: list[Sealing]) -> list[Record]:
        """What was signed of each image."""
        ids = [outcome.record_id for outcome in outcomes if outcome.record_id is not None]
        found = self.journal.by_id(ids)
        return [found[record_id].signed.record for record_id in ids]

    def image(self, uid: str, study: str = "1.2.1", **changes: Any) -> Image:
        data = pydicom.dcmread(EXAMPLE)
        data.SOPInstanceUID, data.StudyInstanceUID = uid, study
        data.file_meta.MediaStorageSOPInstanceUID = uid
        for keyword, value in changes.items():
            setattr(data, keyword, value)
        path = self.folder / f"{uid}.dcm"
        data.save_as(path)
        return read(path)

    def seal(self, image: Image, generator: str | None = None) -> bytes:
        return self.scanner.seal([sealable(image)], *self.beacons.current(), generator)[0].record_id


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    made = Gateway(tmp_path)
    yield made
    made.store.close()


def test_what_is_not_known_is_held_once_however_often_it_comes(gateway: Gateway) -> None:
    one, other = gateway.image("1.3.1"), gateway.image("1.3.2")
    first = gateway.receive(one, other, one)
    assert [outcome.seal for outcome in first] == ["received"] * 3
    assert all(type(record) is GatewayRecord for record in gateway.records(first))
    # The process ends before it has noted what it signed, and does it all again.
    assert gateway.receive(one, other, one) == first
    assert gateway.journal.tail(gateway.sealer.key) == (1, first[1].record_id)


def test_what_is_known_gets_a_step_that_follows(gateway: Gateway) -> None:
    image, generated = gateway.image("1.3.1"), gateway.image("1.3.2", PixelData=bytes(range(32)))
    sealed = gateway.seal(image)
    made = gateway.seal(generated, "a model")
    step, of_generated = gateway.receive(image, generated)
    records = gateway.records([step, of_generated])
    assert [(record.action, record.parents) for record in records if isinstance(record, CustodyRecord)] == [
        ("stored", (sealed,)),
        ("stored", (made,)),
    ]
    stored = gateway.journal.by_id([of_generated.record_id or b""])
    assert [one.generator for one in stored.values()] == ["a model"]


def test_what_was_handed_over_is_received(gateway: Gateway) -> None:
    image = gateway.image("1.3.1")
    sealed = Holdings(gateway.journal).held(image) if gateway.seal(image) else None
    assert sealed is not None
    statement, record = transferred(gateway.sealer.key), sealed.record.signed.record
    own = {"parents": (sealed.record.record_id,), "action": statement.action, "statement": statement.text()}
    gateway.scanner.state(CustodyRecord, [Claim(record.content, record.profile, own)], *gateway.beacons.current())
    (received,) = gateway.records(gateway.receive(image))
    assert isinstance(received, CustodyRecord)
    assert received.action == "received"


def test_an_edited_copy_of_what_is_known_is_of_unknown_origin(gateway: Gateway) -> None:
    gateway.seal(gateway.image("1.3.1"))
    (record,) = gateway.records(gateway.receive(gateway.image("1.3.1", PatientID="X")))
    assert type(record) is GatewayRecord


@pytest.mark.parametrize("is_late", [False, True])
def test_steps_follow_the_record_that_says_where_an_image_comes_from(gateway: Gateway, is_late: bool) -> None:
    """A scanner's image may come back from its PACS before it is sealed, or while it is."""
    image = gateway.image("1.3.1")
    if is_late:
        sealed = gateway.seal(image)
        gateway.sealer.receive([sealable(image)], *gateway.beacons.current())
    else:
        gateway.receive(image)
        sealed = gateway.seal(image)
    assert Holdings(gateway.journal).held(image).record.record_id == sealed
    (step,) = gateway.records(gateway.receive(image))
    assert isinstance(step, CustodyRecord)
    assert step.parents == (sealed,)


def test_an_image_of_an_erased_study_is_held_anew_and_cannot_be_linked(gateway: Gateway) -> None:
    image = gateway.image("1.3.1", "1.2.1")
    (before,) = gateway.records(gateway.receive(image))
    redaction = RedactionStore(gateway.store)
    study = redaction.study("1.2.1")
    assert study is not None
    redaction.redact([study.study])
    (again,) = gateway.records(gateway.receive(image))
    assert type(again) is GatewayRecord
    assert again.content != before.content
