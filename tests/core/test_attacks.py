"""Flip one bit anywhere: never AUTHENTIC, and the token says what is wrong."""

import base64
import copy
import json
import tomllib

import pytest
import tomli_w
from cryptography import x509

from ledger.core import evidence, trust
from ledger.core.certificates import MALFORMED
from ledger.core.errors import EvidenceInvalid, FixInput
from ledger.core.evidence import from_b64, to_b64
from ledger.core.verdict import Token
from ledger.core.verify import Evidence, verify
from tests.core.conftest import make_subject
from tests.simulators.ledger import World

SUBJECT = make_subject()


def made(curve: str) -> tuple[dict, trust.Trust]:
    world = World(curve)
    others = [world.seal(make_subject(seed, SOPInstanceUID=f"1.2.{seed}")) for seed in (2, 3, 4)]
    seal = world.seal(SUBJECT, tiles=True)
    del others
    bundle = world.anchored([seal])
    return json.loads(evidence.write(bundle)), world.trust(8)


MADE = {curve: made(curve) for curve in ("secp256k1", "p256")}


def leaves_of(value: object, path: tuple = ()) -> list[tuple]:
    if isinstance(value, dict):
        return [leaf for name, child in value.items() for leaf in leaves_of(child, (*path, name))]
    if isinstance(value, list):
        return [leaf for index, child in enumerate(value) for leaf in leaves_of(child, (*path, index))]
    return [path]


def places_of(value: object) -> list[tuple]:
    """The leaves, but the nodes of a state as one place: how many there are is chance, and parameters must be the same on each
    process that runs tests. `leaves_of(at(value, place), place)` are a place's leaves."""
    return list(dict.fromkeys(path[:3] if path[::2][:2] == ("states", "nodes") else path for path in leaves_of(value)))


def at(value: object, path: tuple) -> object:
    for part in path:
        value = value[part]
    return value


def changed(bundle: dict, path: tuple, new: object) -> dict:
    copied = copy.deepcopy(bundle)
    at(copied, path[:-1])[path[-1]] = new
    return copied


def flips(value: object, count: int) -> list[object]:
    """The value with one bit flipped, at `count` places spread over it."""
    if isinstance(value, int):
        return [value ^ 1, value ^ 4]
    try:
        data = from_b64(value)
        encode = to_b64
    except ValueError:
        data, encode = value.encode(), lambda flipped: flipped.decode("utf-8", "surrogateescape")
    bits = range(0, len(data) * 8, max(1, len(data) * 8 // count))
    return [encode(data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]) for bit in bits]


def token_of(bundle: dict, believed: trust.Trust) -> Token:
    try:
        parsed = evidence.parse(json.dumps(bundle).encode("utf-8", "surrogateescape"))
    except (EvidenceInvalid, UnicodeEncodeError):
        return Token.NOT_CHECKED
    return verify(SUBJECT, Evidence([parsed], believed)).token


@pytest.mark.parametrize("curve", MADE)
def test_the_bundle_that_the_attacks_start_from_is_authentic(curve):
    bundle, believed = MADE[curve]
    assert token_of(bundle, believed) is Token.AUTHENTIC


PLACES = [(curve, path) for curve, (bundle, _) in MADE.items() for path in places_of(bundle)]


@pytest.mark.parametrize(
    ("curve", "path"), PLACES, ids=lambda value: value if isinstance(value, str) else ".".join(map(str, value))
)
def test_a_bundle_with_any_bit_flipped_is_not_checked(curve, path):
    bundle, believed = MADE[curve]
    for leaf in leaves_of(at(bundle, path), path):
        check_flips(bundle, believed, leaf)


def check_flips(bundle: dict, believed: trust.Trust, path: tuple) -> None:
    unneeded = path[0] == "states" and path[2] == "nodes"
    value = at(bundle, path)
    tokens = {token_of(changed(bundle, path, flipped), believed) for flipped in flips(value, 24)}
    if unneeded and tokens == {Token.AUTHENTIC}:
        assert token_of(without_node(bundle, path[3]), believed) is Token.AUTHENTIC, "a node that is needed was not checked"
        return
    assert tokens <= {Token.NOT_CHECKED, Token.REVOKED}
    assert Token.REVOKED not in tokens or path[0] == "certificates"


def without_node(bundle: dict, index: int) -> dict:
    copied = copy.deepcopy(bundle)
    del copied["states"][0]["nodes"][index]
    return copied


@pytest.mark.parametrize("path", places_of(MADE["p256"][0]), ids=lambda path: ".".join(map(str, path)))
def test_a_bundle_with_any_member_missing_is_not_checked(path):
    bundle, believed = MADE["p256"]
    if isinstance(path[-1], int) and path[0] in ("states", "headers"):
        return
    copied = copy.deepcopy(bundle)
    del at(copied, path[:-1])[path[-1]]
    assert token_of(copied, believed) in (Token.NOT_CHECKED, Token.UNREGISTERED)


def test_a_bundle_without_its_tiles_or_its_beacon_header_is_still_authentic():
    bundle, believed = MADE["p256"]
    copied = copy.deepcopy(bundle)
    del copied["seals"][0]["tiles"]
    copied["headers"] = []
    assert token_of(copied, believed) is Token.AUTHENTIC


BELIEVED = tomllib.loads(tomli_w.dumps(MADE["p256"][1].model_dump(exclude_defaults=True) | {"format": "scanseal-trust-1"}))
LOAD_BEARING = [path for path in leaves_of(BELIEVED) if path[-1] not in ("genesis_hash", "name") and path != ("format",)]


@pytest.mark.parametrize("path", LOAD_BEARING, ids=lambda path: ".".join(map(str, path)))
def test_a_trust_file_with_any_bit_flipped_trusts_no_longer(path):
    value = at(BELIEVED, path)
    for position in range(2 if isinstance(value, str) and value.startswith("0x") else 0, len(str(value)), 5):
        if isinstance(value, int):
            flipped: object = value + 1
        elif path[-1] == "certificate":
            flipped = flipped_pem(value, position)
            if is_same_certificate(value, flipped):
                continue
        else:
            digit = value[position]
            flipped = value[:position] + ("0" if digit != "0" else "1") + value[position + 1 :]
        try:
            believed = trust.parse(tomli_w.dumps(changed(BELIEVED, path, flipped)))
            verdict = verify(SUBJECT, Evidence([evidence.parse(json.dumps(MADE["p256"][0]).encode())], believed))
        except FixInput:
            continue
        assert verdict.token in (Token.NOT_CHECKED, Token.REVOKED), position


def is_same_certificate(one: str, other: str) -> bool:
    """Whether nothing is flipped but the count of bits that the signature's last byte leaves unused."""
    try:
        first, second = (x509.load_pem_x509_certificate(pem.encode()) for pem in (one, other))
        return (first.tbs_certificate_bytes, first.signature) == (second.tbs_certificate_bytes, second.signature)
    except MALFORMED:
        return False


def flipped_pem(pem: str, position: int) -> str:
    lines = pem.split("\n")
    der = bytearray(base64.b64decode("".join(lines[1:-2])))
    der[position % len(der)] ^= 1
    return "\n".join([lines[0], base64.encodebytes(bytes(der)).decode().strip(), lines[-2], ""])


def test_a_record_replayed_on_another_chain_or_contract_proves_nothing():
    bundle, believed = MADE["secp256k1"]
    elsewhere = believed.model_copy(update={"chain_id": 1})
    there = changed(bundle, ("ledger", "chain_id"), 1)
    assert token_of(there, elsewhere) is Token.NOT_CHECKED
    other = believed.anchor_log.model_copy(update={"address": b"\1" * 20})
    moved = changed(bundle, ("ledger", "anchor_log"), to_b64(b"\1" * 20))
    assert token_of(moved, believed.model_copy(update={"anchor_log": other})) is Token.NOT_CHECKED


def test_a_malicious_contract_with_the_right_storage_and_other_code_proves_nothing():
    bundle, believed = MADE["secp256k1"]
    for name in ("anchor_log", "device_registry"):
        contract = getattr(believed, name).model_copy(update={"code_hash": b"\1" * 32})
        assert token_of(bundle, believed.model_copy(update={name: contract})) is Token.NOT_CHECKED


def test_evidence_moved_to_another_image_says_nothing_of_it():
    bundle, believed = MADE["secp256k1"]
    other = make_subject(5, SOPInstanceUID="9.9", StudyInstanceUID="9")
    parsed = evidence.parse(json.dumps(bundle).encode())
    assert verify(other, Evidence([parsed], believed)).token is Token.UNREGISTERED


def test_a_seal_with_another_images_key_and_leaves_opens_nothing():
    world = World()
    first, second = make_subject(), make_subject(2, SOPInstanceUID="1.2.9")
    seals = [world.seal(first), world.seal(second)]
    bundle = world.anchored(seals)
    mixed = bundle.seals[0].model_copy(
        update={"leaves": seals[1].leaves, "image_key": seals[1].image_key, "find": seals[1].find}
    )
    verdict = verify(second, Evidence([bundle.model_copy(update={"seals": (mixed,)})], world.trust(8)))
    assert verdict.token is Token.NOT_CHECKED


def test_a_log_that_shows_another_history_than_the_chain_proves_nothing():
    world = World()
    subject = make_subject()
    seal = world.seal(subject)
    honest = world.anchored([seal])
    world.entries.insert(0, bytes(352))
    forged = world.anchored([seal], state_block=9)
    equivocation = forged.model_copy(update={"states": honest.states})
    assert verify(subject, Evidence([equivocation], world.trust(8))).token is Token.NOT_CHECKED
