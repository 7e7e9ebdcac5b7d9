"""Who gets the evidence of a de-identified image learns nothing of what was changed: every key and salt in it is tried."""

from itertools import chain

import pytest

from ledger.core import content, merkle
from ledger.core.custody import Statement
from ledger.core.evidence import Bundle, parse, write
from ledger.core.search import Subject
from ledger.core.strict import from_b64
from tests.simulators.site import DEIDENTIFY, NOBODY, Site, derived, made_of, shown

GUESSES = ["Doe^Jane", "4711", "S01", "1.2.3", "1.2.3.1", "1.2.3.1.1", "20260131", None]
"""The true values of the parent among them: whoever can test a guess has all guesses that matter."""


def secrets_of(bundle: Bundle) -> set[bytes]:
    """Every 16 bytes that anything in a bundle might be a key or a salt by."""
    found: set[bytes] = set()
    for seal in bundle.seals:
        salts = [seal.salts.salt(name) for name in content.ITEMS]
        found |= {seal.image_key, seal.find, *salts}
        members = Statement.of(seal.record.value).members if seal.record.statement else {}
        bound = from_b64(members["salts"]) if "salts" in members else b""
        found |= {bound[:16], bound[16:]} - {b""}
        found |= {
            content.image_key(key, guess or "", uid) for key in bundle.studies for guess in GUESSES for uid in ("1.9", "")
        }
    for study in bundle.studies:
        found |= {study[:16], study[16:]}
    for key in list(found):
        keyed = content.Salts(key)
        found |= {keyed.salt(name) for name in content.ITEMS}
    return found


def opened(bundle: Bundle, leaves: tuple[bytes, ...]) -> set[tuple[str, str | None]]:
    """The (item, guess) pairs that some leaf proves under some secret of the bundle."""
    known = set(leaves)
    salts = secrets_of(bundle)
    found = set()
    for name in content.ITEMS:
        for salt in salts:
            one = content.Salts(bytes(16), {name: salt})
            found |= {(name, guess) for guess in GUESSES if one.leaf(content.ITEMS.index(name), guess) in known}
    return found


def evidence_of(site: Site, child: Subject, statement: Statement) -> tuple[Bundle, tuple[bytes, ...]]:
    """The bundle of a child as a stranger gets it, and the parent's leaves in it."""
    parent = site.seal(site.original)
    made = site.derive(child, parent, statement, signer=site.gateway)
    bundle = parse(write(site.anchored([made], records=shown(parent))))
    return bundle, bundle.records[0].leaf_hashes


RETAINED = Statement(
    "de-identified", {"profile": "ps3.15-basic", "options": ["retain-uids"], "changed": ["PatientName", "PatientID"]}
)
CASES = {
    "new UIDs": (DEIDENTIFY, {}),
    "retained UIDs: same pixels, same instance, same study, same secret": (RETAINED, {"uid": "1.2.3.1.1"}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_childs_evidence_opens_nothing_of_its_parent_that_was_changed(name):
    site = Site()
    statement, changes = CASES[name]
    child = made_of(site.original, **NOBODY, **changes)
    bundle, leaves = evidence_of(site, child, statement)
    found = opened(bundle, leaves)
    assert not {item for item, _ in found} & set(statement.changed)
    # The search does find what there is to find: what was kept, and the child's own values.
    assert ("StudyDate", "20260131") in found
    assert ("PatientName", "S01") in opened(bundle, bundle.seals[0].leaf_hashes)


def test_the_search_finds_what_a_careless_seal_would_give_away():
    """The parent's image key beside the child is enough: so this test can fail."""
    site = Site()
    bundle, leaves = evidence_of(site, made_of(site.original, **NOBODY), DEIDENTIFY)
    parents_key = site.seal(site.original).image_key
    seal = bundle.seals[0]
    careless = replace_key(bundle, parents_key)
    assert seal.image_key != parents_key
    assert ("PatientName", "Doe^Jane") in opened(careless, leaves)


def replace_key(bundle: Bundle, key: bytes) -> Bundle:
    seal = bundle.seals[0]
    kept = b"".join(seal.salts.salt(name) for name in content.ITEMS)
    record = seal.record.model_copy(
        update={"statement": derived("secondary-capture").with_salts(key, kept).text(), "action": "derived"}
    )
    return bundle.model_copy(update={"seals": (seal.model_copy(update={"record": record, "image_key": key, "kept": kept}),)})


def test_a_childs_evidence_opens_no_siblings_record_in_the_log():
    """A correction of the same image is in the log with its content alone. Who has the evidence of a de-identified copy knows
    all of its leaves but one, so that the key of that one's salt must not be theirs."""
    site = Site()
    parent = site.seal(site.original)
    copy = made_of(site.original, uid="1.2.3.1.1", **NOBODY)
    made = site.derive(copy, parent, RETAINED, signer=site.gateway)
    corrected = made_of(site.original, uid="1.2.3.1.1", PatientName="Doe^Joan")
    sibling = site.derive(corrected, parent, derived("correction", "PatientName"), signer=site.gateway)
    bundle = parse(write(site.anchored([made], records=shown(parent))))
    parents_leaves = bundle.records[0].leaf_hashes
    position = content.ITEMS.index("PatientName")

    def contents(salts: set[bytes]) -> set[bytes]:
        return {
            merkle.root_of([leaf if at == position else one for at, one in enumerate(parents_leaves)])
            for salt in salts
            for leaf in [content.Salts(bytes(16), {"PatientName": salt}).leaf(position, "Doe^Joan")]
        }

    assert sibling.record.content not in contents(secrets_of(bundle))
    assert sibling.record.content in contents({sibling.salts.salt("PatientName")})


def test_a_grandchilds_evidence_opens_nothing_that_was_changed_on_the_way():
    site = Site()
    parent = site.seal(site.original)
    middle = made_of(site.original, uid="1.2.3.1.1", PatientName="Doe^Joan")
    corrected = site.derive(middle, parent, derived("correction", "PatientName"), signer=site.gateway)
    child = made_of(middle, uid="1.2.3.1.1", **NOBODY)
    made = site.derive(child, corrected, RETAINED, signer=site.gateway)
    bundle = parse(write(site.anchored([made], records=shown(parent, corrected))))
    leaves = tuple(chain.from_iterable(record.leaf_hashes for record in bundle.records))
    found = opened(bundle, leaves)
    assert not {item for item, _ in found} & {"PatientName", "PatientID"}
    assert ("StudyDate", "20260131") in found


def test_a_seal_says_nothing_without_its_key():
    """A record that opens nothing, as a parent's, has neither key, salts nor look-up tokens."""
    site = Site()
    bundle, _ = evidence_of(site, made_of(site.original, **NOBODY), DEIDENTIFY)
    assert set(bundle.records[0].model_dump(exclude_none=True)) == {"record", "signature", "leaves", "included"}
    assert site.original.attributes["PatientName"] not in write(bundle).decode()
