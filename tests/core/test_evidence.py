"""Bundles are read strictly: one form for each bundle, a clear error for everything else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.core import evidence
from ledger.core.errors import EvidenceInvalid
from ledger.core.strict import from_b64, to_b64

EMPTY = {
    "format": "scanseal-bundle-1",
    "ledger": {
        "chain_id": 1,
        "anchor_log": to_b64(bytes(20)),
        "device_registry": to_b64(bytes(20)),
        "origin": "scanseal/test",
        "log_id": to_b64(bytes(32)),
        "log_key": to_b64(bytes(32)),
    },
    "certificates": [],
    "studies": [],
    "seals": [],
    "anchors": [],
    "states": [],
    "headers": [],
}
SEAL = {
    "record": {
        "content": to_b64(bytes(32)),
        "profile": "px1-sha256/attributes-1",
        "key": to_b64(bytes(32)),
        "counter": 0,
        "previous": to_b64(bytes(32)),
        "claimed_time": 0,
        "beacon_number": 0,
        "beacon_hash": to_b64(bytes(32)),
    },
    "signature": to_b64(bytes(64)),
    "leaves": "",
    "image_key": to_b64(bytes(16)),
    "study": 0,
    "find": to_b64(bytes(16)),
}


def text(**changes: object) -> bytes:
    return json.dumps(EMPTY | changes).encode()


def test_a_bundle_is_written_as_it_was_read():
    bundle = evidence.parse(text(studies=[to_b64(bytes(32))], seals=[SEAL]))
    assert evidence.parse(evidence.write(bundle)) == bundle


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe{}",
        b"{" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        text() + b"x",
        text() + text(),
        text()[:-1],
        b'{"format": "scanseal-bundle-1", "format": "scanseal-bundle-1"' + text()[1:],
        text(more=1),
        text(format="scanseal-bundle-2"),
        text(certificates="x"),
        text(certificates=["="]),
        text(certificates=["AB"]),
        text(studies=[to_b64(bytes(31))]),
        text(ledger=EMPTY["ledger"] | {"chain_id": "1"}),
        text(ledger=EMPTY["ledger"] | {"chain_id": 1.0}),
        text(ledger=EMPTY["ledger"] | {"chain_id": True}),
        text(ledger=EMPTY["ledger"] | {"chain_id": -1}),
        text(ledger=EMPTY["ledger"] | {"chain_id": 2**64}),
        text(seals=[SEAL]),
        text(seals=[SEAL | {"study": 7}], studies=[to_b64(bytes(32))]),
        text(seals=[SEAL | {"included": {"anchor": 0, "index": 0, "path": ""}}], studies=[to_b64(bytes(32))]),
        text(seals=[{key: value for key, value in SEAL.items() if key != "leaves"}], studies=[to_b64(bytes(32))]),
        text().replace(b'"chain_id": 1', b'"chain_id": NaN'),
        text().replace(b'"chain_id": 1', b'"chain_id": ' + b"9" * 5000),
        b'{"format":' + b"{" * 50 + b"}" * 50 + b"}",
    ],
    ids=lambda value: value[:30].decode("latin-1") + f"~{len(value)}",
)
def test_hostile_json_is_one_clear_error(hostile):
    with pytest.raises(EvidenceInvalid) as caught:
        evidence.parse(hostile)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@given(st.binary(max_size=100))
def test_base64_has_one_form(data):
    assert from_b64(to_b64(data)) == data
    for other in (to_b64(data) + "=", to_b64(data) + "\n", " " + to_b64(data)):
        with pytest.raises(ValueError):
            from_b64(other)


def test_base64_with_stray_bits_is_refused():
    assert from_b64("AA") == b"\0"
    with pytest.raises(ValueError):
        from_b64("AB")
