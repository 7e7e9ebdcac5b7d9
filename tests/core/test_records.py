"""Records are EIP-712, byte for byte as eth_account computes it."""

import pytest
from eth_account.messages import _hash_eip191_message, encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from ledger.core.errors import EvidenceInvalid, FixInput
from ledger.core.records import AcquisitionRecord, Role, SignedRecord
from ledger.core.typeddata import Domain, digest

word = st.binary(min_size=32, max_size=32)
uint64 = st.integers(0, 2**64 - 1)
records = st.builds(AcquisitionRecord, word, st.text(max_size=40), word, uint64, word, uint64, uint64, word)


def typed_data(record: AcquisitionRecord, chain_id: int, contract: bytes) -> dict:
    names = ["content", "profile", "key", "counter", "previous", "claimed_time", "beacon_number", "beacon_hash"]
    domain = {"name": "string", "version": "string", "chainId": "uint256", "verifyingContract": "address"}
    return {
        "types": {
            "EIP712Domain": [{"name": name, "type": kind} for name, kind in domain.items()],
            record.TYPE: [{"name": name, "type": kind} for kind, name in record.FIELDS],
        },
        "primaryType": record.TYPE,
        "domain": {"name": "ScanSeal", "version": "1", "chainId": chain_id, "verifyingContract": "0x" + contract.hex()},
        "message": {field: getattr(record, name) for (_, field), name in zip(record.FIELDS, names, strict=True)},
    }


@given(records, st.integers(1, 2**53), st.binary(min_size=20, max_size=20))
def test_the_record_id_is_the_eip712_digest_of_eth_account(record, chain_id, contract):
    expected = _hash_eip191_message(encode_typed_data(full_message=typed_data(record, chain_id, contract)))
    assert record.id(Domain(chain_id, contract)) == expected


@given(records)
def test_an_entry_gives_the_record_and_its_id_back(record):
    domain = Domain(1, bytes(20))
    entry = SignedRecord(record, bytes(64)).entry()
    assert len(entry) == 352
    assert AcquisitionRecord.from_entry(entry, record.profile) == record
    assert digest(domain, entry[:288]) == record.id(domain)


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


def test_the_same_record_has_another_id_on_another_chain_or_contract():
    record = AcquisitionRecord(bytes(32), "p", bytes(32), 0, bytes(32), 0, 0, bytes(32))
    ids = {record.id(Domain(chain, contract)) for chain in (1, 2) for contract in (bytes(20), b"\1" * 20)}
    assert len(ids) == 4


def test_roles_are_named_in_words():
    assert (Role.ACQUIRE | Role.HOLD).words == "acquire, hold"
    assert Role(0).words == "none"
