"""Records are EIP-712, byte for byte as eth_account computes it."""

from dataclasses import fields

import pytest
from eth_account.messages import _hash_eip191_message, encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from ledger.core.errors import EvidenceInvalid, FixInput
from ledger.core.records import (
    CUSTODY_ROLES,
    TYPES,
    AcquisitionRecord,
    Approval,
    CustodyRecord,
    GatewayRecord,
    ManifestRecord,
    Record,
    Role,
    SignedRecord,
    SyntheticRecord,
)
from ledger.core.typeddata import Domain, digest

A, B = b"\1" * 32, b"\2" * 32
HEAD = (bytes(32), "p", bytes(32), 0, bytes(32), 0, 0, bytes(32))
word = st.binary(min_size=32, max_size=32)
uint64 = st.integers(0, 2**64 - 1)
text = st.text(max_size=40)
head = (word, text, word, uint64, word, uint64, uint64, word)
records = st.builds(AcquisitionRecord, *head)
every_type = st.one_of(
    records,
    st.builds(SyntheticRecord, *head, text),
    st.builds(GatewayRecord, *head),
    st.builds(CustodyRecord, *head, st.lists(word, max_size=5).map(tuple), text, text),
    st.builds(ManifestRecord, *head, text, uint64),
    st.builds(Approval, *head, text, text),
)


def typed_data(record: Record, chain_id: int, contract: bytes) -> dict:
    names = [field.name for field in fields(record)]
    domain = {"name": "string", "version": "string", "chainId": "uint256", "verifyingContract": "address"}
    return {
        "types": {
            "EIP712Domain": [{"name": name, "type": kind} for name, kind in domain.items()],
            record.TYPE: [{"name": name, "type": kind} for kind, name in record.FIELDS],
        },
        "primaryType": record.TYPE,
        "domain": {"name": "ScanSeal", "version": "1", "chainId": chain_id, "verifyingContract": "0x" + contract.hex()},
        "message": {field: plain(getattr(record, name)) for (_, field), name in zip(record.FIELDS, names, strict=True)},
    }


def plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


@given(every_type, st.integers(1, 2**53), st.binary(min_size=20, max_size=20))
def test_the_record_id_is_the_eip712_digest_of_eth_account(record, chain_id, contract):
    expected = _hash_eip191_message(encode_typed_data(full_message=typed_data(record, chain_id, contract)))
    assert record.id(Domain(chain_id, contract)) == expected


@given(every_type)
def test_an_entry_gives_the_record_and_its_id_back(record):
    domain = Domain(1, bytes(20))
    entry = SignedRecord(record, bytes(64)).entry()
    assert len(entry) == 352 + 32 * len(record.own)
    assert type(record).from_entry(entry, record.profile, record.own) == record
    assert digest(domain, entry[:-64]) == record.id(domain)


@given(every_type, st.data())
def test_an_entry_is_of_no_other_type_and_has_no_other_members(record, data):
    entry = SignedRecord(record, bytes(64)).entry()
    other = data.draw(every_type)
    if (type(other), other.own, other.profile) != (type(record), record.own, record.profile):
        with pytest.raises(EvidenceInvalid):
            type(other).from_entry(entry, other.profile, other.own)


@given(every_type, every_type)
def test_two_records_with_one_id_are_the_same_record(one, other):
    domain = Domain(1, bytes(20))
    assert (one.id(domain) == other.id(domain)) == (one == other)


def test_a_list_of_parents_is_not_the_list_joined_or_in_another_order():
    def record_id(*parents: bytes) -> bytes:
        return CustodyRecord(*HEAD, parents, "stored", "{}").id(Domain(1, bytes(20)))

    assert len({record_id(), record_id(A), record_id(A, B), record_id(B, A), record_id(A, A), record_id(A, B, A)}) == 6


def test_each_type_needs_its_role():
    of_type = {
        "AcquisitionRecord": Role.ACQUIRE,
        "SyntheticRecord": Role.GENERATE,
        "GatewayRecord": Role.HOLD,
        "ManifestRecord": Role.ACQUIRE | Role.HOLD | Role.TRANSFORM,
        "Approval": Role.APPROVE,
    }
    assert {name: kind.ROLES for name, kind in TYPES.items() if kind is not CustodyRecord} == of_type
    for action, role in CUSTODY_ROLES.items():
        assert CustodyRecord(*HEAD, (A,), action, "{}").roles is role
    with pytest.raises(EvidenceInvalid):
        _ = CustodyRecord(*HEAD, (A,), "lent", "{}").roles


def test_an_entry_of_another_profile_or_type_is_refused():
    record = AcquisitionRecord(bytes(32), "px1-sha256/attributes-1", bytes(32), 0, bytes(32), 0, 0, bytes(32))
    entry = SignedRecord(record, bytes(64)).entry()
    for wrong in (entry[:100], b"\1" + entry[1:]):
        with pytest.raises(EvidenceInvalid):
            AcquisitionRecord.from_entry(wrong, record.profile)
    with pytest.raises(EvidenceInvalid):
        AcquisitionRecord.from_entry(entry, "raw1-sha256/attributes-1")


@pytest.mark.parametrize(
    "change", [{"content": b"short"}, {"counter": -1}, {"counter": 2**64}, {"profile": 5}, {"counter": True}]
)
def test_a_field_that_does_not_fit_its_type_is_refused(change):
    values = {
        "content": bytes(32),
        "profile": "p",
        "key": bytes(32),
        "counter": 0,
        "previous": bytes(32),
        "claimed_time": 0,
        "beacon_number": 0,
        "beacon_hash": bytes(32),
    }
    with pytest.raises(FixInput):
        AcquisitionRecord(**(values | change)).encoded()


@pytest.mark.parametrize(
    "record",
    [
        CustodyRecord(*HEAD, [A], "stored", "{}"),
        CustodyRecord(*HEAD, (A[:31],), "stored", "{}"),
        CustodyRecord(*HEAD, A, "stored", "{}"),
        CustodyRecord(*HEAD, (A,), "stored", b"{}"),
        ManifestRecord(*HEAD, "visit", -1),
        ManifestRecord(*HEAD, "visit", "1"),
        Approval(*HEAD, None, "approved"),
        SyntheticRecord(*HEAD, 5),
    ],
    ids=repr,
)
def test_a_member_of_its_own_that_does_not_fit_is_refused(record):
    with pytest.raises(FixInput):
        record.encoded()


def test_the_same_record_has_another_id_on_another_chain_or_contract():
    record = AcquisitionRecord(bytes(32), "p", bytes(32), 0, bytes(32), 0, 0, bytes(32))
    ids = {record.id(Domain(chain, contract)) for chain in (1, 2) for contract in (bytes(20), b"\1" * 20)}
    assert len(ids) == 4


def test_roles_are_named_in_words():
    assert (Role.ACQUIRE | Role.HOLD).words == "acquire, hold"
    assert Role(0).words == "none"
