"""The signing side with a journal on disk: gapless records of every type, and what is refused before anything is signed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.core import content
from ledger.core.contracts import Beacon
from ledger.core.custody import Statement, transferred
from ledger.core.errors import FixInput, NeedPermission, TryLater
from ledger.core.records import AcquisitionRecord, Approval, CustodyRecord, ManifestRecord, SyntheticRecord
from ledger.core.search import Subject
from ledger.core.stored_pixels import cs1
from ledger.core.typeddata import Domain
from ledger.keys import signers
from ledger.register import NO_RECORD, Claim, Receipt, Sealable, Sealer
from ledger.store import open_store
from ledger.store.journal import JournalStore
from tests.core.conftest import make_subject
from tests.simulators.site import DEIDENTIFY, NOBODY, derived, made_of

DOMAIN = Domain(31337, b"\xaa" * 20)
BEACON = Beacon(7, b"\7" * 32)
NOW = 1_700_000_000
WHEN = (BEACON, NOW - 12)


def sealable(subject: Subject) -> Sealable:
    return Sealable(subject.attributes, subject.digests["px1-sha256"])


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[JournalStore]:
    store = open_store(tmp_path / "store.db")
    yield JournalStore(store)
    store.close()


@pytest.fixture
def sealer(journal: JournalStore) -> Sealer:
    return Sealer(journal, signers.new_key("p256"), DOMAIN, lambda: NOW)


ORIGINAL = make_subject()


def opening(journal: JournalStore, receipt: Receipt):
    return journal.opening(journal.by_id([receipt.record_id])[receipt.record_id])


def test_records_of_every_type_share_one_row_of_counters(journal, sealer):
    (sealed,) = sealer.seal([sealable(ORIGINAL)], *WHEN)
    child = sealer.derive(sealable(made_of(ORIGINAL, **NOBODY)), [opening(journal, sealed)], DEIDENTIFY, *WHEN)
    synthetic = sealer.seal([sealable(make_subject(5, SOPInstanceUID="1.5"))], *WHEN, generator="a model")[0]
    own = {"parents": (sealed.record_id,), "action": "stored", "statement": "{}"}
    first = journal.by_id([sealed.record_id])[sealed.record_id].signed.record
    step = sealer.state(CustodyRecord, [Claim(first.content, first.profile, own)], *WHEN)[0]
    listed = sealer.state(ManifestRecord, [Claim(bytes(32), "manifest-1", {"kind": "heartbeat", "count": 0})], *WHEN)[0]
    signed = sealer.state(Approval, [Claim(child.record_id, "approval-1", {"name": "Ada", "meaning": "seen"})] * 2, *WHEN)
    receipts = [sealed, child, synthetic, step, listed, *signed]
    assert [receipt.counter for receipt in receipts] == list(range(7))
    stored = journal.by_id(receipt.record_id for receipt in receipts)
    records = [stored[receipt.record_id].signed.record for receipt in receipts]
    kinds = [AcquisitionRecord, CustodyRecord, SyntheticRecord, CustodyRecord, ManifestRecord, Approval, Approval]
    assert [type(record) for record in records] == kinds
    assert [record.previous for record in records] == [NO_RECORD, *(receipt.record_id for receipt in receipts[:-1])]
    assert [record.id(DOMAIN) for record in records] == [receipt.record_id for receipt in receipts]
    assert journal.tail(sealer.key) == (6, signed[-1].record_id)
    assert len(journal.queued_entries(10)) == 7


def test_the_same_image_is_signed_once(journal, sealer):
    images = [sealable(ORIGINAL), sealable(make_subject(2, SOPInstanceUID="1.5")), sealable(ORIGINAL)]
    first = sealer.seal(images, *WHEN)
    assert [receipt.is_new for receipt in first] == [True, True, False]
    again = sealer.seal(images, *WHEN)
    assert again == [replace(receipt, is_new=False) for receipt in first]
    made = sealable(made_of(ORIGINAL, **NOBODY))
    one = sealer.derive(made, [opening(journal, first[0])], DEIDENTIFY, *WHEN)
    assert sealer.derive(made, [opening(journal, first[0])], DEIDENTIFY, *WHEN) == replace(one, is_new=False)
    assert journal.counts()[0] == 3


def test_another_statement_of_the_same_image_is_another_record(journal, sealer):
    """What a receipt says is not lost because the image was signed before: another reason, other parents, another tool."""
    parent, other = sealer.seal([sealable(ORIGINAL), sealable(make_subject(2, SOPInstanceUID="1.5"))], *WHEN)
    made = sealable(made_of(ORIGINAL, 6))
    parents = [opening(journal, one) for one in (parent, other)]
    capture = derived("secondary-capture", "PixelData", "SOPInstanceUID")
    receipts = [
        sealer.derive(made, parents[:1], capture, *WHEN),
        sealer.derive(made, parents, capture, *WHEN),
        sealer.derive(made, parents[:1], derived("burn-in", "PixelData", "SOPInstanceUID"), *WHEN),
        sealer.derive(made, parents[:1], Statement("derived", capture.members | {"tool": "x 1"}), *WHEN),
    ]
    assert [receipt.is_new for receipt in receipts] == [True] * 4
    first, second = (sealer.seal([made], *WHEN, generator=generator)[0] for generator in ("a model", "another model"))
    assert first.is_new
    assert second.is_new


def test_a_transcoded_copy_of_a_derived_image_is_signed_too(journal, sealer):
    (parent,) = sealer.seal([sealable(ORIGINAL)], *WHEN)
    made = sealable(made_of(ORIGINAL, **NOBODY))
    child = sealer.derive(made, [opening(journal, parent)], DEIDENTIFY, *WHEN)
    copy = sealer.derive(made, [opening(journal, child)], Statement("transcoded", {"transfer_syntax": "1.2"}), *WHEN)
    assert copy.is_new
    records = journal.by_id([child.record_id, copy.record_id])
    assert records[child.record_id].signed.record.content == records[copy.record_id].signed.record.content


def test_what_was_derived_opens_to_what_the_child_is(journal, sealer):
    (parent,) = sealer.seal([sealable(ORIGINAL)], *WHEN)
    child = made_of(ORIGINAL, **NOBODY)
    made = opening(journal, sealer.derive(sealable(child), [opening(journal, parent)], DEIDENTIFY, *WHEN))
    assert content.opened(made.leaves, made.content) == made.leaves
    assert content.differing(made.leaves, made.salts, child.attributes) == ()
    assert content.unequal(made.leaves, opening(journal, parent).leaves) == DEIDENTIFY.changed
    again = made_of(child, 4, "1.10")
    last = opening(journal, sealer.derive(sealable(again), [made], derived("burn-in", "PixelData", "SOPInstanceUID"), *WHEN))
    assert content.differing(last.leaves, last.salts, again.attributes) == ()


# ---- refused ----


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"PixelSpacing": "1\\1"}, "PixelSpacing"), ({"Laterality": "L"}, "Laterality"), ({"PatientSex": "F"}, "PatientSex")],
)
def test_a_change_that_is_not_declared_is_refused_by_name_and_nothing_is_signed(journal, sealer, changes, named):
    (parent,) = sealer.seal([sealable(ORIGINAL)], *WHEN)
    child = sealable(made_of(ORIGINAL, **NOBODY, **changes))
    with pytest.raises(FixInput, match=named) as caught:
        sealer.derive(child, [opening(journal, parent)], DEIDENTIFY, *WHEN)
    assert not any(str(value) in str(caught.value) for value in ("Doe^Jane", "4711", "1\\1"))
    assert journal.counts()[0] == 1


def test_other_pixels_and_what_may_not_change_are_refused(journal, sealer):
    (parent,) = sealer.seal([sealable(ORIGINAL)], *WHEN)
    with pytest.raises(FixInput, match="PixelData"):
        sealer.derive(sealable(made_of(ORIGINAL, 4, **NOBODY)), [opening(journal, parent)], DEIDENTIFY, *WHEN)
    spacing = Statement(DEIDENTIFY.action, DEIDENTIFY.members | {"changed": [*DEIDENTIFY.changed, "PixelSpacing"]})
    with pytest.raises(FixInput, match="PixelSpacing"):
        sealer.derive(sealable(made_of(ORIGINAL, **NOBODY)), [opening(journal, parent)], spacing, *WHEN)
    with pytest.raises(FixInput, match="PatientName"):
        sealer.derive(sealable(made_of(ORIGINAL, **NOBODY)), [opening(journal, parent)], Statement("stored"), *WHEN)
    assert journal.counts()[0] == 1


@pytest.mark.parametrize(
    ("action", "text", "parents"),
    [("stored", '{"more":1}', 1), ("stored", "no JSON", 1), ("lent", "{}", 1), ("stored", "{}", 0), ("stored", "{}", 2)],
)
def test_no_record_is_signed_that_no_verifier_reads(journal, sealer, action, text, parents):
    ids = tuple(bytes([number]) * 32 for number in range(parents))
    claim = Claim(bytes(32), "px1-sha256/attributes-1", {"parents": ids, "action": action, "statement": text})
    with pytest.raises(FixInput, match="no such record is signed"):
        sealer.state(CustodyRecord, [claim], *WHEN)
    assert journal.tail(sealer.key) is None


def test_two_parents_where_one_belongs_are_refused(journal, sealer):
    receipts = sealer.seal([sealable(ORIGINAL), sealable(make_subject(2, SOPInstanceUID="1.5"))], *WHEN)
    parents = [opening(journal, receipt) for receipt in receipts]
    with pytest.raises(FixInput, match="one parent"):
        sealer.derive(sealable(made_of(ORIGINAL, **NOBODY)), parents, DEIDENTIFY, *WHEN)
    assert journal.counts()[0] == 2


# ---- synthetic ----


def test_synthetic_pixels_are_never_sealed_as_acquired(journal, sealer):
    made = make_subject(5, SOPInstanceUID="1.5")
    sealer.seal([sealable(made)], *WHEN, generator="a model")
    for disguise in (made, made_of(made, uid="1.6"), made_of(made, uid="1.7", StudyInstanceUID="9", PatientName="Doe^Jane")):
        with pytest.raises(NeedPermission, match="a model"):
            sealer.seal([sealable(ORIGINAL), sealable(disguise)], *WHEN)
    other = Sealer(journal, signers.new_key("secp256k1"), DOMAIN, lambda: NOW)
    with pytest.raises(NeedPermission):
        other.seal([sealable(made_of(made, uid="1.8"))], *WHEN)
    assert journal.counts()[0] == 1


def test_what_is_made_of_a_synthetic_image_is_synthetic_too(journal, sealer):
    made = make_subject(5, SOPInstanceUID="1.5")
    (receipt,) = sealer.seal([sealable(made)], *WHEN, generator="a model")
    marked = made_of(made, 6, "1.6")
    burnt = sealer.derive(
        sealable(marked), [opening(journal, receipt)], derived("burn-in", "PixelData", "SOPInstanceUID"), *WHEN
    )
    assert journal.by_id([burnt.record_id])[burnt.record_id].generator == "a model"
    with pytest.raises(NeedPermission, match="a model"):
        sealer.seal([sealable(made_of(marked, uid="1.7"))], *WHEN)
    own = {"parents": (receipt.record_id,), "action": "stored", "statement": "{}"}
    held = opening(journal, receipt)
    step = sealer.state(CustodyRecord, [Claim(held.content, held.profile, own, held.generator)], *WHEN)[0]
    assert opening(journal, step).generator == "a model"


def test_synthetic_pixels_do_not_become_a_patients_by_derivation(journal, sealer):
    """A capture of an acquired image may have any pixels: not these."""
    made = make_subject(5, SOPInstanceUID="1.5")
    synthetic, acquired = sealer.seal([sealable(made)], *WHEN, generator="a model") + sealer.seal([sealable(ORIGINAL)], *WHEN)
    capture = derived("secondary-capture", "PixelData", "SOPInstanceUID")
    laundered = sealable(Subject(made_of(ORIGINAL).attributes, made.digests))
    with pytest.raises(NeedPermission, match="a model"):
        sealer.derive(laundered, [opening(journal, acquired)], capture, *WHEN)
    both = [opening(journal, one) for one in (acquired, synthetic)]
    receipt = sealer.derive(laundered, both, capture, *WHEN)
    assert journal.by_id([receipt.record_id])[receipt.record_id].generator == "a model"


def test_a_lossy_original_that_decodes_to_synthetic_pixels_is_refused(journal, sealer):
    made = make_subject(5, SOPInstanceUID="1.5")
    sealer.seal([sealable(made)], *WHEN, generator="a model")
    lossy = Sealable(
        made_of(made, uid="1.6").attributes, cs1("JPEG", [b"x"], bytes(32)), made.digests["px1-sha256"], "libjpeg 1"
    )
    with pytest.raises(NeedPermission, match="a model"):
        sealer.seal([lossy], *WHEN)


# ---- two writers ----

WRITER = """
import sys
from ledger.core.contracts import Beacon
from ledger.core.errors import TryLater
from ledger.core.records import ManifestRecord
from ledger.core.typeddata import Domain
from pathlib import Path
from ledger.keys.signers import load
from ledger.register import Claim, Sealer
from ledger.store import open_store
from ledger.store.journal import JournalStore
from tests.core.conftest import make_subject
from tests.test_register import sealable

name, path, pem = sys.argv[1:]
sealer = Sealer(JournalStore(open_store(path)), load(Path(pem), "secret"), Domain(31337, b"\\xaa" * 20), lambda: 1)
for number in range(15):
    while True:
        try:
            if number % 3:
                sealer.seal([sealable(make_subject(1, SOPInstanceUID=f"1.{name}.{number}"))], Beacon(7, bytes(32)), 1)
            else:
                own = {"kind": "heartbeat", "count": number}
                sealer.state(ManifestRecord, [Claim(bytes(32), "manifest-1", own)] * 2, Beacon(7, bytes(32)), 1)
            break
        except TryLater:
            continue
"""


def test_two_processes_with_one_key_leave_no_gap_and_no_fork(tmp_path):
    signer = signers.new_key("p256")
    pem = signers.save(signer, tmp_path / "key", "secret")
    path = tmp_path / "store.db"
    open_store(path).close()
    commands = [[sys.executable, "-c", WRITER, name, str(path), str(pem)] for name in "12"]
    started = [subprocess.Popen(command, cwd=Path(__file__).parents[1]) for command in commands]
    assert [process.wait(120) for process in started] == [0, 0]
    store = open_store(path)
    journal = JournalStore(store)
    counter, record_id = journal.tail(signer.key) or (-1, b"")
    assert counter == 2 * (10 + 5 * 2) - 1
    while record_id != NO_RECORD:
        record = journal.by_id([record_id])[record_id].signed.record
        assert record.counter == counter
        counter, record_id = counter - 1, record.previous
    assert counter == -1
    store.close()


@pytest.mark.parametrize("tail", [None, (1, b"\1" * 32), (7, b"\1" * 32)], ids=["a slot that is taken", "a gap", "a wide gap"])
def test_who_read_an_old_tail_or_a_wrong_one_is_told_to_try_later(tmp_path, tail):
    class Stale(JournalStore):
        def tail(self, key: bytes) -> tuple[int, bytes] | None:
            return tail

    store, signer = open_store(tmp_path / "store.db"), signers.new_key("p256")
    Sealer(JournalStore(store), signer, DOMAIN, lambda: NOW).seal([sealable(ORIGINAL)], *WHEN)
    with pytest.raises(TryLater):
        Sealer(Stale(store), signer, DOMAIN, lambda: NOW).seal([sealable(make_subject(2, SOPInstanceUID="1.5"))], *WHEN)
    assert JournalStore(store).counts()[0] == 1
    store.close()


def test_a_clock_behind_the_beacon_claims_the_beacons_time(journal):
    sealer = Sealer(journal, signers.new_key("p256"), DOMAIN, lambda: NOW - 5000)
    (receipt,) = sealer.seal([sealable(ORIGINAL)], *WHEN)
    record = journal.by_id([receipt.record_id])[receipt.record_id].signed.record
    assert (record.claimed_time, record.beacon_number, record.beacon_hash) == (NOW - 12, 7, b"\7" * 32)


def test_a_hand_over_is_a_step(journal, sealer):
    (receipt,) = sealer.seal([sealable(ORIGINAL)], *WHEN)
    held = opening(journal, receipt)
    own = {"parents": (receipt.record_id,), "action": "transferred", "statement": transferred(b"\2" * 32).text()}
    step = sealer.state(CustodyRecord, [Claim(held.content, held.profile, own)], *WHEN)[0]
    assert [one.record_id for one in journal.following([receipt.record_id])] == [step.record_id]
