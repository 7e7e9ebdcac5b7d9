"""Evidence that a site leaves with its node: once, opened by the image alone, and taken back when it is redacted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from ledger.core.contracts import Beacon
from ledger.core.errors import TryLater
from ledger.core.evidence import Bundle
from ledger.node.client import NodeClient
from ledger.register import Sealer
from ledger.store.journal import JournalStore
from ledger.store.leaving import LeavingStore
from ledger.store.redaction import RedactionStore
from ledger.web import Limits
from ledger.wiring.bundles import Exporter
from ledger.wiring.images import Images, sealable, subject
from ledger.wiring.leaving import AT_ONCE, Leaving, Left
from tests.node.ends import Node, Site, running
from tests.web.nodes import Agent, trust, wait_until


@dataclass
class End:
    """A site whose images are final, and what leaves their evidence."""

    site: Site
    leaving: Leaving
    folder: Path

    def seal(self, count: int, hash_name: str = "sha256") -> None:
        dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
        self.folder.mkdir(exist_ok=True)
        for number in range(count):
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
            dataset.StudyInstanceUID = f"1.2.9.{number}"
            dataset.save_as(self.folder / f"{number}.dcm")
        agent = self.site.agent
        sealer = Sealer(self.site.journal, agent.signer, agent.domain, lambda: 1_800_000_000)
        read = [sealable(found.read(), hash_name) for found in Images([str(self.folder)])]
        sealer.seal(read, Beacon(7, b"\7" * 32), 0)

    def settle(self) -> None:
        node, size = self.site.node, self.site.journal.counts()[0]
        self.site.turn()
        wait_until(lambda: node.desk.log.head().size == size)
        node.anchor(size)
        self.site.turn()

    def found(self, number: int, **changes: str) -> tuple[tuple[Bundle, ...], str | None]:
        """What somebody finds at the node who has the image."""
        path = self.folder / f"{number}.dcm"
        if changes:
            dataset = pydicom.dcmread(path)
            for name, value in changes.items():
                setattr(dataset, name, value)
            path = self.folder.parent / "changed.dcm"
            dataset.save_as(path)
        client = NodeClient(self.site.node.url)
        try:
            (image,) = Images([str(path)])
            return Left(client).found(subject(image, frozenset({"sha256"})))
        finally:
            client.close()


def ended(folder: Path, node: Node) -> End:
    site = Site(folder, node, Agent())
    site.journal = JournalStore(site.store, deposits=True)
    site.following = site.started()
    store = LeavingStore(site.store)

    def exporter() -> Exporter:
        return Exporter(trust(), site.journal, site.anchors, site.log, [site.agent.certificate])

    client = NodeClient(node.url, site.token, sleep=lambda _: None)
    return End(site, Leaving(store, site.journal, site.anchors, exporter, client), folder / "images")


@pytest.fixture
def end(tmp_path: Path) -> Iterator[End]:
    (tmp_path / "node").mkdir()
    with running(tmp_path / "node") as node:
        made = ended(tmp_path, node)
        yield made
        made.site.store.close()


def record_ids(end: End, number: int) -> list[bytes]:
    return [seal.record.value.id(end.site.agent.domain) for bundle in end.found(number)[0] for seal in bundle.seals]


def test_the_evidence_of_an_image_is_left_when_it_is_final_and_found_by_the_image(end: End) -> None:
    end.seal(2)
    assert end.leaving.turn() == 0
    end.settle()
    assert end.leaving.turn() == 2
    assert end.leaving.turn() == 0
    sealed = [stored.record_id for stored in end.site.journal.all_images()]
    assert sorted(record_ids(end, 0) + record_ids(end, 1)) == sorted(sealed)
    (bundle,), damage = end.found(0)
    assert damage is None
    assert bundle.seals[0].included is not None
    assert bundle.seals[0].tiles is None
    assert end.found(0, SOPInstanceUID="1.2.3.99") == ((), None)
    assert end.found(0, PatientName="Another^One") == ((), None)
    assert end.found(0, StudyDate="20200101")[0] == (bundle,), "so that it is named what was changed"


def test_an_image_that_was_sealed_under_the_other_hash_is_found_too(end: End) -> None:
    end.seal(1, "blake3")
    end.settle()
    assert end.leaving.turn() == 1
    assert len(record_ids(end, 0)) == 1


def test_a_note_that_was_not_written_leaves_it_again_in_the_same_place(end: End, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object, **__: object) -> None:
        raise TryLater("the store is locked")

    end.seal(1)
    end.settle()
    with monkeypatch.context() as patched:
        patched.setattr(LeavingStore, "note", die)
        with pytest.raises(TryLater):
            end.leaving.turn()
    assert len(record_ids(end, 0)) == 1
    assert end.leaving.turn() == 1
    assert len(record_ids(end, 0)) == 1


def test_what_is_redacted_is_taken_back_and_nothing_that_opens_it_stays(end: End) -> None:
    end.seal(2)
    end.settle()
    end.leaving.turn()
    with end.site.store.reading() as connection:
        secrets = connection.exec_driver_sql("SELECT deposit FROM record ORDER BY number").scalars().all()
    redaction = RedactionStore(end.site.store)
    study = redaction.study("1.2.9.0")
    assert study is not None
    redaction.redact([study.study])
    with end.site.store.reading() as connection:
        kept = connection.exec_driver_sql("SELECT deposit FROM record ORDER BY number").scalars().all()
    assert kept[0] not in (None, secrets[0])
    assert kept[1] == secrets[1]
    assert end.leaving.turn() == 1
    assert end.leaving.turn() == 0
    assert end.found(0) == ((), None)
    assert len(record_ids(end, 1)) == 1
    with end.site.store.reading() as connection:
        assert connection.exec_driver_sql("SELECT deposit FROM record ORDER BY number").scalars().first() is None


def test_what_is_redacted_before_it_was_left_is_left_no_more(end: End) -> None:
    end.seal(1)
    end.settle()
    redaction = RedactionStore(end.site.store)
    study = redaction.study("1.2.9.0")
    assert study is not None
    redaction.redact([study.study])
    end.leaving.turn()
    assert end.found(0) == ((), None)


def test_what_the_node_does_not_take_keeps_nothing_waiting(tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    with running(tmp_path / "node", limits=Limits(deposit=100)) as node:
        end = ended(tmp_path, node)
        end.seal(1)
        end.settle()
        assert end.leaving.turn() == 1
        assert end.leaving.turn() == 0
        assert end.found(0) == ((), None)
        end.site.store.close()


def test_a_node_that_gives_something_else_gives_nothing(end: End) -> None:
    end.seal(1)
    end.settle()
    end.leaving.turn()
    end.site.node.lies["evidence"] = lambda body: b'{"evidence": ["' + b"QUJD" * 20 + b'"]}'
    bundles, damage = end.found(0)
    assert bundles == ()
    assert damage is not None
    assert "does not open with this image" in damage


def test_a_node_that_does_not_answer_is_asked_once_for_many_images(end: End) -> None:
    end.seal(1)
    (image,) = Images([str(end.folder)])
    client = NodeClient("http://127.0.0.1:9", sleep=lambda _: None)
    left = Left(client)
    one = subject(image, frozenset({"sha256"}))
    with pytest.raises(TryLater) as first:
        left.found(one)
    client.close()
    with pytest.raises(TryLater) as second:
        left.found(one)
    assert first.value is second.value


def test_no_more_than_a_turn_holds_is_left_at_once(end: End) -> None:
    end.seal(AT_ONCE + 3)
    end.settle()
    assert [end.leaving.turn() for _ in range(3)] == [AT_ONCE, 3, 0]
