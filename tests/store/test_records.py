"""Records in a database: what an older version sealed is still there, and custody is found along its links."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from ledger.core.contracts import Beacon
from ledger.core.custody import Statement
from ledger.core.errors import NeedPermission, Stop
from ledger.core.evidence import Tiles
from ledger.core.records import AcquisitionRecord, Approval, CustodyRecord, SignedRecord
from ledger.core.typeddata import Domain
from ledger.keys import signers
from ledger.register import Claim, Opening, Receipt, Sealable, Sealer
from ledger.store import open_store
from ledger.store.journal import JournalStore
from ledger.store.records import SQL_LIMIT, RecordReader
from ledger.store.redaction import RedactionStore
from tests.core.conftest import make_subject
from tests.simulators.site import DEIDENTIFY, NOBODY, derived, made_of

DOMAIN = Domain(31337, b"\xaa" * 20)
WHEN = (Beacon(7, b"\7" * 32), 1_700_000_000)
ORIGINAL = make_subject()


@pytest.fixture
def journal(database: str) -> Iterator[JournalStore]:
    store = open_store(database)
    yield JournalStore(store)
    store.close()


@pytest.fixture
def sealer(journal: JournalStore) -> Sealer:
    return Sealer(journal, signers.new_key("p256"), DOMAIN, lambda: 1_700_000_000)


def sealable(seed: int = 1, uid: str = "1.2.3.1.1", **changes: str) -> Sealable:
    subject = make_subject(seed, SOPInstanceUID=uid, **changes)
    return Sealable(subject.attributes, subject.digests["px1-sha256"])


def opening(journal: RecordReader, receipt: Receipt) -> Opening:
    return journal.opening(journal.by_id([receipt.record_id])[receipt.record_id])


def step(journal: JournalStore, sealer: Sealer, receipt: Receipt, action: str = "stored") -> Receipt:
    held = opening(journal, receipt)
    own = {"parents": (receipt.record_id,), "action": action, "statement": "{}"}
    return sealer.state(CustodyRecord, [Claim(held.content, held.profile, own, held.generator)], *WHEN)[0]


def child(journal: JournalStore, sealer: Sealer, receipt: Receipt, uid: str = "1.9") -> Receipt:
    made = made_of(ORIGINAL, uid=uid, **NOBODY)
    read = Sealable(made.attributes, made.digests["px1-sha256"])
    return sealer.derive(read, [opening(journal, receipt)], DEIDENTIFY, *WHEN)


# ---- what an older version sealed ----


def of_revision_2(database: str) -> list[tuple[bytes, bytes]]:
    """A database as the version before custody left it, with three seals, one of them in the log, one redacted; their
    (record id, entry)."""
    url = database if "://" in database else f"sqlite:///{database}"
    engine = create_engine(url)
    signer = signers.new_key("p256")
    found = []
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", "ledger.store:migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        connection.execute(
            text("INSERT INTO study (id, token, secret) VALUES (5, :token, :secret), (6, :other, null)"),
            {"token": b"\1" * 32, "secret": b"\2" * 32, "other": b"\3" * 32},
        )
        previous = bytes(32)
        for number, (counter, log_index, key) in enumerate([(0, 41, b"k" * 16), (1, None, b"l" * 16), (2, None, None)], 3):
            digest = make_subject(number).digests["px1-sha256"]
            head = (bytes([number]) * 32, "px1-sha256/attributes-1", signer.key, counter, previous, 9, 7, b"\7" * 32)
            record = AcquisitionRecord(*head)
            previous = record.id(DOMAIN)
            entry = SignedRecord(record, signer.sign(previous)).entry()
            connection.execute(
                text(
                    "INSERT INTO seal (number, signer, counter, record_id, content, profile, entry, leaves, image_key, study, "
                    "find, pixels_token, instance_token, decoder, tiles, log_index) VALUES (:number, :signer, :counter, "
                    ":record_id, :content, :profile, :entry, :leaves, :image_key, :study, :find, :pixels, :instance, :decoder, "
                    ":tiles, :log_index)"
                ),
                {
                    "number": number,
                    "signer": signer.key,
                    "counter": counter,
                    "record_id": previous,
                    "content": record.content,
                    "profile": record.profile,
                    "entry": entry,
                    "leaves": bytes([number]) * 32 * 47,
                    "image_key": key,
                    "study": 5 if key else 6,
                    "find": bytes([number]) * 16,
                    "pixels": bytes([number]) * 32 if key else None,
                    "instance": None,
                    "decoder": "libjpeg 1" if counter else None,
                    "tiles": Tiles.of(digest).model_dump_json().encode(),
                    "log_index": log_index,
                },
            )
            found.append((previous, entry))
    engine.dispose()
    return found


def test_what_was_sealed_before_custody_is_kept_in_every_member(database: str) -> None:
    sealed = of_revision_2(database)
    store = open_store(database)
    journal = JournalStore(store)
    stored = journal.by_id(record_id for record_id, _ in sealed)
    records = [stored[record_id] for record_id, _ in sealed]
    assert [record.signed.entry() for record in records] == [entry for _, entry in sealed]
    assert [record.number for record in records] == [3, 4, 5]
    assert [record.log_index for record in records] == [41, None, None]
    assert [record.image_key for record in records] == [b"k" * 16, b"l" * 16, None]
    assert [record.study for record in records] == [5, 5, 6]
    assert [record.decoder for record in records] == [None, "libjpeg 1", "libjpeg 1"]
    assert [record.leaves for record in records] == [bytes([number]) * 32 * 47 for number in (3, 4, 5)]
    assert all(type(record.signed.record) is AcquisitionRecord for record in records)
    assert all((record.generator, record.kept, record.parents) == (None, None, ()) for record in records)
    assert all(Tiles.model_validate_json(record.tiles or b"").rows == 130 for record in records)
    assert journal.counts() == (3, 2)
    assert journal.next_index() == 42
    assert journal.tail(records[0].signed.record.key) == (2, sealed[-1][0])
    assert len(list(journal.all_images())) == 2
    with pytest.raises(NeedPermission):
        records[2].seal(0, None, with_tiles=False)
    store.close()


def test_a_migrated_database_goes_on_counting_and_sealing(database: str) -> None:
    sealed = of_revision_2(database)
    store = open_store(database)
    journal = JournalStore(store)
    (receipt,) = Sealer(journal, signers.new_key("p256"), DOMAIN, lambda: 1).seal([sealable()], *WHEN)
    assert journal.by_id([receipt.record_id])[receipt.record_id].number == 6
    assert len(journal.by_id([*(record_id for record_id, _ in sealed), receipt.record_id])) == 4
    store.close()


def test_a_database_without_seals_migrates_too(database: str) -> None:
    url = database if "://" in database else f"sqlite:///{database}"
    engine = create_engine(url)
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", "ledger.store:migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
    engine.dispose()
    store = open_store(database)
    (receipt,) = Sealer(JournalStore(store), signers.new_key("p256"), DOMAIN, lambda: 1).seal([sealable()], *WHEN)
    assert RecordReader(store).by_id([receipt.record_id])[receipt.record_id].number == 1
    store.close()


# ---- along custody ----


def test_records_are_found_by_what_they_follow(journal: JournalStore, sealer: Sealer) -> None:
    (image,) = sealer.seal([sealable()], *WHEN)
    first, second = step(journal, sealer, image), step(journal, sealer, image, "exported")
    third = step(journal, sealer, first)
    approval = Claim(third.record_id, "approval-1", {"name": "Ada", "meaning": "seen"})
    signed = sealer.state(Approval, [approval], *WHEN)[0]
    made = child(journal, sealer, third)

    def following(*receipts: Receipt) -> list[bytes]:
        return [one.record_id for one in journal.following([receipt.record_id for receipt in receipts])]

    assert following(image) == [first.record_id, second.record_id]
    assert following(third) == [signed.record_id, made.record_id]
    assert following(image, first) == [first.record_id, second.record_id, third.record_id]
    assert following(made) == []
    assert journal.following([]) == []


def test_ancestors_are_all_that_leads_to_a_record(journal: JournalStore, sealer: Sealer) -> None:
    images = sealer.seal([sealable(seed, f"1.{seed}") for seed in (1, 2)], *WHEN)
    held = step(journal, sealer, images[0])
    result = make_subject(9, SOPInstanceUID="1.77")
    parents = [opening(journal, held), opening(journal, images[1])]
    read = Sealable(result.attributes, result.digests["px1-sha256"])
    made = sealer.derive(read, parents, derived("secondary-capture", "PixelData", "SOPInstanceUID"), *WHEN)
    last = step(journal, sealer, made)
    stored = journal.by_id([last.record_id]).values()
    assert set(journal.ancestors(stored)) == {one.record_id for one in (made, held, *images)}
    assert journal.ancestors(journal.by_id([images[0].record_id]).values()) == {}


def test_a_missing_ancestor_stops(journal: JournalStore, sealer: Sealer) -> None:
    own = {"parents": (b"\5" * 32,), "action": "stored", "statement": "{}"}
    (receipt,) = sealer.state(CustodyRecord, [Claim(bytes(32), "px1-sha256/attributes-1", own)], *WHEN)
    with pytest.raises(Stop, match="lacks a record"):
        journal.ancestors(journal.by_id([receipt.record_id]).values())


def test_the_leaves_of_a_step_are_the_first_holders(journal: JournalStore, sealer: Sealer) -> None:
    (image,) = sealer.seal([sealable()], *WHEN)
    other = Sealer(journal, signers.new_key("p256"), DOMAIN, lambda: 1)
    other.seal([sealable()], *WHEN)
    held = step(journal, sealer, image)
    (found,) = journal.holding([opening(journal, held).content, bytes(32)]).values()
    assert found.record_id == image.record_id
    assert opening(journal, held).leaves == opening(journal, image).leaves
    assert opening(journal, held).record_id == held.record_id
    own = {"parents": (image.record_id,), "action": "stored", "statement": "{}"}
    lost = sealer.state(CustodyRecord, [Claim(b"\6" * 32, "px1-sha256/attributes-1", own)], *WHEN)[0]
    with pytest.raises(Stop, match="leaves"):
        opening(journal, lost)


def test_many_are_asked_for_at_once(journal: JournalStore, sealer: Sealer) -> None:
    """More than one query takes, and one record that follows two of them is found once."""
    (image,) = sealer.seal([sealable()], *WHEN)
    images = [image, *sealer.seal([sealable(2, "1.2")], *WHEN)]
    result = make_subject(9, SOPInstanceUID="1.77")
    read = Sealable(result.attributes, result.digests["px1-sha256"])
    statement = derived("secondary-capture", "PixelData", "SOPInstanceUID")
    made = sealer.derive(read, [opening(journal, one) for one in images], statement, *WHEN)
    fillers = [number.to_bytes(32, "big") for number in range(SQL_LIMIT)]
    asked = [images[0].record_id, *fillers, images[1].record_id]
    assert [one.record_id for one in journal.following(asked)] == [made.record_id]
    assert len(journal.by_id(asked)) == 2


def test_what_is_stored_of_a_type_comes_back(journal: JournalStore, sealer: Sealer) -> None:
    (image,) = sealer.seal([sealable()], *WHEN, generator="GAN é山 \U0001f600")
    made = child(journal, sealer, image)
    signed = sealer.state(Approval, [Claim(made.record_id, "approval-1", {"name": 'Dr. "Ö"', "meaning": "seen\\"})], *WHEN)[0]
    stored = journal.by_id([image.record_id, made.record_id, signed.record_id])
    assert stored[image.record_id].signed.record.own == {"generator": "GAN é山 \U0001f600"}
    assert stored[signed.record_id].signed.record.own == {"name": 'Dr. "Ö"', "meaning": "seen\\"}
    record = stored[made.record_id].signed.record
    assert isinstance(record, CustodyRecord)
    assert record.parents == (image.record_id,)
    assert Statement.of(record).changed == DEIDENTIFY.changed
    assert stored[made.record_id].generator == "GAN é山 \U0001f600"
    assert {one.signed.record.id(DOMAIN) for one in stored.values()} == set(stored)


def test_a_redacted_parent_opens_nothing_and_its_child_still_does(journal: JournalStore, sealer: Sealer, database: str) -> None:
    (image,) = sealer.seal([sealable()], *WHEN)
    apart = made_of(ORIGINAL, StudyInstanceUID="9.9", **NOBODY)
    statement = Statement(
        "de-identified", DEIDENTIFY.members | {"changed": ["PatientName", "PatientID", "StudyInstanceUID", "SOPInstanceUID"]}
    )
    read = Sealable(apart.attributes, apart.digests["px1-sha256"])
    made = sealer.derive(read, [opening(journal, image)], statement, *WHEN)
    store = open_store(database)
    redaction = RedactionStore(store)
    study = redaction.study("1.2.3")
    assert study is not None
    assert [one.record_id for one in study.derived] == [made.record_id]
    redaction.redact([study.study])
    store.close()
    with pytest.raises(NeedPermission):
        opening(journal, image)
    assert opening(journal, made).content == journal.by_id([made.record_id])[made.record_id].signed.record.content
    assert set(journal.ancestors(journal.by_id([made.record_id]).values())) == {image.record_id}
