"""Keys in hardware, on real SoftHSM2 tokens: what they sign, what they never give away, and what is said when they fail."""

import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pkcs11 as p11
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass

from ledger.core import signatures
from ledger.core.certificates import Device
from ledger.core.errors import FixInput, NeedPermission, ScanSealError, Stop, TryLater
from ledger.keys import authority, pkcs11, signers
from ledger.keys.pkcs11 import Pkcs11Signer, Place
from ledger.keys.tokens import _no_login
from tests.keys.softhsm import OFFICER_PIN, PIN, SoftHsm, softhsm

# python-pkcs11 ends a search that a broken session had refused to begin, and says that this fails.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. 'pkcs11._pkcs11.OperationContext")
CURVES = ("secp256k1", "p256")
PARAMETERS = {"secp256k1": "06052b8104000a", "p256": "06082a8648ce3d030107", "brainpool": "06092b2403030208010107"}
DEVICE = Device("Acme", "CT 3000", "4711", "CT1", "Site")
NOW = datetime(2026, 1, 31, tzinfo=UTC)
DIGEST = bytes(range(32))
USER_PIN_BLOB = 0x8000534D
PIN_COUNT_LOW, PIN_FINAL_TRY, PIN_LOCKED = 0x10000, 0x20000, 0x40000


@pytest.fixture
def hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    made = softhsm(tmp_path / "hsm")
    monkeypatch.setenv("SOFTHSM2_CONF", made.env["SOFTHSM2_CONF"])
    return made


@pytest.fixture
def place(hsm: SoftHsm, tmp_path: Path) -> Place:
    """A token with nothing on it, and where a key would be."""
    (tmp_path / "pin").write_text(f"{PIN}\n")
    return Place(hsm.module, hsm.new_token(), "ct1", pin_file=tmp_path / "pin")


def restarted(place: Place) -> p11.Token:
    """The token as it is now, for the test's own use; every session of this process is over."""
    library = p11.lib(str(place.module))
    library.reinitialize()
    return library.get_token(token_label=place.token)


def flags(place: Place) -> int:
    return int(p11.lib(str(place.module)).get_token(token_label=place.token).flags)


def set_flags(hsm: SoftHsm, place: Place, more: int) -> None:
    """Sets flags of the one token as SoftHSM2 keeps them: 8 bytes, high first."""
    now = int(restarted(place).flags)
    (file,) = hsm.tokens.glob("*/token.object")
    content = file.read_bytes()
    assert content.count(now.to_bytes(8, "big")) == 1
    file.write_bytes(content.replace(now.to_bytes(8, "big"), (now | more).to_bytes(8, "big")))
    p11.lib(str(place.module)).reinitialize()


def put(place: Place, curve: str, **template: object) -> None:
    """A key pair on the token, made by its owner with attributes of his own."""
    with_pin = restarted(place).open(rw=True, user_pin=PIN)
    with_pin.create_domain_parameters(
        KeyType.EC, {Attribute.EC_PARAMS: bytes.fromhex(PARAMETERS[curve])}, local=True
    ).generate_keypair(
        label=place.key_label,
        store=True,
        capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
        private_template={Attribute[name]: value for name, value in template.items()},
    )
    with_pin.close()


@pytest.mark.parametrize("curve", CURVES)
def test_every_signature_of_a_token_is_in_the_one_valid_form(curve, place):
    signer = pkcs11.make(place, curve)

    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(min_size=32, max_size=32))
    def signs(digest: bytes) -> None:
        signature = signer.sign(digest)
        signatures.check(signer.public_key_der, digest, signature)
        high = signatures.ORDERS["secp256k1" if curve == "secp256k1" else "secp256r1"]
        assert len(signature) == 64
        assert 0 < int.from_bytes(signature[32:], "big") <= high // 2

    signs()
    assert signatures.algorithm_of(signer.public_key_der) == ("secp256k1" if curve == "secp256k1" else "p256")


@pytest.mark.parametrize("curve", CURVES)
def test_openssl_accepts_what_a_token_signs(curve, place, tmp_path):
    signer = pkcs11.make(place, curve)
    signature = signer.sign(DIGEST)
    der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    (tmp_path / "key.der").write_bytes(signer.public_key_der)
    (tmp_path / "signature").write_bytes(der)
    arguments = (
        "-verify",
        "-pubin",
        "-inkey",
        str(tmp_path / "key.der"),
        "-keyform",
        "DER",
        "-sigfile",
        str(tmp_path / "signature"),
    )
    said = subprocess.run(["openssl", "pkeyutl", *arguments], input=DIGEST, capture_output=True, check=True)
    assert b"Verified Successfully" in said.stdout


@pytest.mark.parametrize("curve", CURVES)
def test_a_key_made_on_a_token_cannot_be_taken_out(curve, place):
    pkcs11.make(place, curve)
    session = restarted(place).open(user_pin=PIN)
    (key,) = session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})
    with pytest.raises(p11.AttributeSensitive):
        key[Attribute.VALUE]
    for attribute in ("EXTRACTABLE", "DERIVE", "UNWRAP"):
        assert not key[Attribute[attribute]]
    for attribute in ("SENSITIVE", "ALWAYS_SENSITIVE", "NEVER_EXTRACTABLE", "LOCAL", "PRIVATE", "SIGN"):
        assert key[Attribute[attribute]]
    session.close()


def test_the_key_file_finds_the_key_again_and_has_neither_key_nor_pin(place, tmp_path):
    made = pkcs11.make(place, "p256")
    path = pkcs11.save(made, tmp_path / "ct1.old")
    assert path.name == "ct1.old.pkcs11.toml"
    assert PIN not in path.read_text()
    loaded = signers.load(path, "no passphrase")
    assert isinstance(loaded, Pkcs11Signer)
    assert (loaded.key, loaded.place) == (made.key, made.place)
    signatures.check(made.public_key_der, DIGEST, loaded.sign(DIGEST))
    with pytest.raises(FixInput, match="never overwritten"):
        pkcs11.save(made, tmp_path / "ct1.old")


@pytest.mark.parametrize("curve", CURVES)
def test_a_request_is_signed_without_the_key_leaving_its_token(curve, place):
    signer = pkcs11.make(place, curve)
    request, holder = authority.read_request(authority.request(DEVICE, signer))
    assert holder == DEVICE
    assert authority.new_authority("Site", NOW).issue(request.public_bytes(Encoding.DER), NOW).key == signer.key


def test_a_label_that_is_taken_is_not_used_twice(place):
    pkcs11.make(place, "p256")
    with pytest.raises(FixInput, match="--existing-key"):
        pkcs11.make(place, "p256")
    signer, never_outside = pkcs11.existing(place)
    assert never_outside
    signatures.check(signer.public_key_der, DIGEST, signer.sign(DIGEST))


def test_a_key_by_its_id_alone(place):
    made = pkcs11.make(replace(place, key_id=b"\x8f\x0e"), "p256")
    by_id, _ = pkcs11.existing(replace(place, key_label=None, key_id=b"\x8f\x0e"))
    assert by_id.key == made.key
    with pytest.raises(FixInput, match="it has label 'ct1' and id 8f0e"):
        pkcs11.existing(replace(place, key_label=None, key_id=b"\x8f\x0f"))


@pytest.mark.parametrize(
    ("curve", "template", "said"),
    [
        ("p256", {"EXTRACTABLE": True}, "can be taken out"),
        ("p256", {"SENSITIVE": False, "EXTRACTABLE": False}, "can be taken out"),
        ("p256", {"EXTRACTABLE": False, "SIGN": False}, "may not sign"),
        ("p256", {"EXTRACTABLE": False, "ALWAYS_AUTHENTICATE": True}, "PIN at each signature"),
        ("brainpool", {"EXTRACTABLE": False}, "neither P-256 nor secp256k1"),
    ],
)
def test_a_key_that_is_not_fit_is_not_taken(place, curve, template, said):
    put(place, curve, **template)
    with pytest.raises(FixInput, match=said):
        pkcs11.existing(place)


def test_two_keys_of_one_label_must_be_told_apart(place):
    put(place, "p256", EXTRACTABLE=False)
    put(place, "p256", EXTRACTABLE=False)
    with pytest.raises(FixInput, match="2 private keys of label 'ct1': name one by label and id"):
        pkcs11.existing(place)


def test_a_key_that_came_from_outside_is_said_to(place):
    private = ec.generate_private_key(ec.SECP256R1())
    point = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    common = {Attribute.KEY_TYPE: KeyType.EC, Attribute.EC_PARAMS: bytes.fromhex(PARAMETERS["p256"]), Attribute.LABEL: "ct1"}
    common |= {Attribute.TOKEN: True}
    session = restarted(place).open(rw=True, user_pin=PIN)
    session.create_object(
        common
        | {
            Attribute.CLASS: ObjectClass.PRIVATE_KEY,
            Attribute.VALUE: private.private_numbers().private_value.to_bytes(32, "big"),
        }
        | {Attribute.SIGN: True, Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.PRIVATE: True}
    )
    session.create_object(common | {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.EC_POINT: b"\x04\x41" + point})
    session.close()
    signer, never_outside = pkcs11.existing(place)
    assert not never_outside
    put(replace(place, key_label="ct2"), "p256", EXTRACTABLE=True)
    session = restarted(place).open(rw=True, user_pin=PIN)
    (once_extractable,) = session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.LABEL: "ct2"})
    once_extractable[Attribute.EXTRACTABLE] = False
    session.close()
    assert pkcs11.existing(replace(place, key_label="ct2"))[1] is False
    signatures.check(signer.public_key_der, DIGEST, signer.sign(DIGEST))


# ---- PINs ---------------------------------------------------------------------------------------------------------------


def test_a_wrong_pin_is_tried_once_and_never_shown(hsm, place, tmp_path, caplog):
    path = pkcs11.save(pkcs11.make(place, "p256"), tmp_path / "ct1")
    restarted(place)
    (tmp_path / "pin").write_text("hunter2-wrong")
    with pytest.raises(FixInput, match=r"refuses the PIN from the file .*pin: tokens lock") as told:
        pkcs11.load(path)
    assert flags(place) & PIN_COUNT_LOW
    restarted(place).open(user_pin=PIN).close()
    assert not flags(place) & PIN_COUNT_LOW
    for _ in range(3):
        with pytest.raises(FixInput, match="not tried again"):
            pkcs11.load(path)
    assert not flags(place) & PIN_COUNT_LOW
    (tmp_path / "pin").write_text(PIN)
    signer = pkcs11.load(path)
    signer.sign(DIGEST)
    shown = f"{told.value!r} {told.value.__cause__!r} {signer!r} {signer.__dict__!r} {caplog.text}"
    assert PIN not in shown
    assert "hunter2" not in shown


def test_a_pin_that_was_changed_under_a_running_signer_is_asked_for_once(hsm, place, tmp_path):
    signer = pkcs11.make(place, "p256")
    session = restarted(place).open(rw=True, user_pin=PIN)
    session.set_pin(PIN, "another pin")
    session.close()
    with pytest.raises(FixInput, match="refuses the PIN"):
        signer.sign(DIGEST)
    restarted(place).open(user_pin="another pin").close()
    with pytest.raises(FixInput, match="refuses the PIN"):
        signer.sign(DIGEST)
    assert not flags(place) & PIN_COUNT_LOW
    (tmp_path / "pin").write_text("another pin")
    signatures.check(signer.public_key_der, DIGEST, signer.sign(DIGEST))


def test_the_last_try_before_a_token_locks_is_never_used(hsm, place):
    set_flags(hsm, place, PIN_COUNT_LOW | PIN_FINAL_TRY)
    with pytest.raises(NeedPermission, match="locks its PIN at the next wrong one, so none was tried"):
        pkcs11.make(place, "p256")
    assert flags(place) & PIN_FINAL_TRY


def test_a_locked_pin_says_who_can_help(hsm, place):
    set_flags(hsm, place, PIN_LOCKED)
    with pytest.raises(NeedPermission, match="security officer"):
        pkcs11.make(place, "p256")


@pytest.mark.parametrize(("answer", "said"), [(p11.PinLocked(), "security officer"), (p11.PinExpired(), "new PIN")])
def test_what_else_a_token_answers_to_a_login_is_said(answer, said):
    """SoftHSM2 never locks a PIN nor lets it expire, so it gives neither answer."""
    assert said in str(_no_login(answer, "the token 'x'"))


def test_a_token_without_a_user_pin_says_so(hsm, place):
    """SoftHSM2's tool always sets both PINs; the user's is taken out of the token's file."""
    (file,) = hsm.tokens.glob("*/token.object")
    content = file.read_bytes()
    kind = USER_PIN_BLOB.to_bytes(8, "big")
    assert content.count(kind) == 1
    file.write_bytes(content.replace(kind, (USER_PIN_BLOB + 0x100).to_bytes(8, "big")))
    p11.lib(str(place.module)).reinitialize()
    with pytest.raises(FixInput, match="no user PIN yet"):
        pkcs11.make(place, "p256")


def test_the_pin_of_the_environment(place, monkeypatch):
    here = replace(place, pin_file=None, pin_env="TOKEN_PIN")
    with pytest.raises(FixInput, match="the variable TOKEN_PIN, for the token's PIN, is empty"):
        pkcs11.make(here, "p256")
    monkeypatch.setenv("TOKEN_PIN", PIN)
    signer = pkcs11.make(here, "p256")
    signatures.check(signer.public_key_der, DIGEST, signer.sign(DIGEST))


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_a_pin_file_that_has_no_pin_is_said_and_nothing_is_tried(place, content):
    place.pin_file.unlink()
    if content is not None:
        place.pin_file.write_bytes(content)
    with pytest.raises(FixInput, match=r"the file .*pin"):
        pkcs11.make(place, "p256")
    restarted(place)
    assert not flags(place) & PIN_COUNT_LOW


# ---- what is not there --------------------------------------------------------------------------------------------------


def test_what_is_missing_is_named_with_what_is_there(hsm, place, tmp_path):
    pkcs11.make(place, "p256")
    with pytest.raises(FixInput, match=r"no PKCS#11 module .*nowhere.so: on this machine there is .*libsofthsm2.so"):
        pkcs11.existing(replace(place, module=tmp_path / "nowhere.so"))
    (tmp_path / "text.so").write_text("no library")
    with pytest.raises(FixInput, match=r"text\.so cannot be loaded as a PKCS#11 module"):
        pkcs11.existing(replace(place, module=tmp_path / "text.so"))
    with pytest.raises(FixInput, match=rf"no token 'other' in .*: there is '{place.token}'"):
        pkcs11.existing(replace(place, token="other"))
    with pytest.raises(FixInput, match=r"no private elliptic curve key of label 'mr1': it has label 'ct1' and id \w{32}"):
        pkcs11.existing(replace(place, key_label="mr1"))
    hsm.util("--init-token", "--free", "--label", place.token, "--pin", PIN, "--so-pin", OFFICER_PIN)
    restarted_all = p11.lib(str(place.module))
    restarted_all.reinitialize()
    with pytest.raises(FixInput, match="more than one token is called"):
        pkcs11.existing(place)


def test_a_module_that_cannot_start_may_later(hsm, place, monkeypatch, tmp_path):
    signer = pkcs11.make(place, "p256")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "missing.conf"))
    with suppress(p11.PKCS11Error):
        p11.lib(str(place.module)).reinitialize()
    with pytest.raises(TryLater, match="does not answer"):
        signer.sign(DIGEST)
    monkeypatch.setenv("SOFTHSM2_CONF", hsm.env["SOFTHSM2_CONF"])
    signatures.check(signer.public_key_der, DIGEST, signer.sign(DIGEST))


def test_a_token_with_another_key_of_the_same_name_is_not_the_device(place, tmp_path):
    path = pkcs11.save(pkcs11.make(replace(place, key_id=b"\1"), "p256"), tmp_path / "ct1")
    session = restarted(place).open(rw=True, user_pin=PIN)
    for found in list(session.get_objects()):
        found.destroy()
    session.close()
    pkcs11.make(replace(place, key_id=b"\1"), "p256")
    with pytest.raises(FixInput, match="another key"):
        pkcs11.load(path)


# ---- what breaks --------------------------------------------------------------------------------------------------------


def logged_out(hsm: SoftHsm, place: Place) -> None:
    """The session is closed by somebody else in this process, which logs the token out."""
    from ledger.keys import tokens

    tokens._modules[place.module]._sessions[place.token].session.close()


def reloaded(hsm: SoftHsm, place: Place) -> None:
    p11.lib(str(place.module)).reinitialize()


def stopped(hsm: SoftHsm, place: Place) -> None:
    p11.lib(str(place.module)).finalize()


@pytest.mark.parametrize("breaks", [logged_out, reloaded, stopped])
def test_a_session_that_broke_is_opened_anew(hsm, place, breaks: Callable[[SoftHsm, Place], None]):
    signer = pkcs11.make(place, "secp256k1")
    for _ in range(3):
        breaks(hsm, place)
        signatures.check(signer.public_key_der, DIGEST, signer.sign(DIGEST))


def test_a_token_that_was_taken_out_is_tried_later_and_signs_once_it_is_back(hsm, place):
    signer = pkcs11.make(place, "p256")
    away = hsm.folder / "in a drawer"
    hsm.tokens.rename(away)
    hsm.tokens.mkdir()
    for _ in range(2):
        with pytest.raises(TryLater, match=r"does not answer .*plugged in"):
            signer.sign(DIGEST)
    shutil.rmtree(hsm.tokens)
    away.rename(hsm.tokens)
    signatures.check(signer.public_key_der, DIGEST, signer.sign(DIGEST))


def test_a_key_that_was_deleted_is_named(place):
    signer = pkcs11.make(place, "p256")
    session = restarted(place).open(rw=True, user_pin=PIN)
    for found in list(session.get_objects()):
        found.destroy()
    session.close()
    with pytest.raises(FixInput, match=r"no private elliptic curve key of label 'ct1'.*it has none"):
        signer.sign(DIGEST)


def test_a_signature_that_is_not_the_keys_is_never_given_out(place):
    """The token's public key belongs to another private key: what a token with a fault looks like from outside."""
    for label in ("ct1", "other"):
        put(replace(place, key_label=label), "p256", EXTRACTABLE=False)
    session = restarted(place).open(rw=True, user_pin=PIN)
    for found in list(session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY})):
        if found.label == "ct1":
            found.destroy()
        else:
            found[Attribute.LABEL] = "ct1"
    session.close()
    signer, _ = pkcs11.existing(place)
    with pytest.raises(Stop, match="not by the key of label 'ct1': nothing was signed"):
        signer.sign(DIGEST)
    with pytest.raises(Stop):
        authority.request(DEVICE, signer)


@pytest.mark.parametrize("notices", [False, True])
def test_a_process_that_forks_signs_on_both_sides(hsm, place, notices):
    """A child starts the module anew, whether or not the module notices the fork by itself."""
    hsm.configuration.write_text(f"{hsm.configuration.read_text()}library.reset_on_fork = {str(notices).lower()}\n")
    restarted(place)
    signer = pkcs11.make(place, "p256")
    of_the_parent = [p11.lib(str(place.module)).get_token(token_label=place.token).open() for _ in range(3)][-1]

    def child() -> list[bytes]:
        signed = [signer.sign(DIGEST) for _ in range(20)]
        with pytest.raises(p11.SessionHandleInvalid):
            of_the_parent.generate_random(8)
        return signed

    context = multiprocessing.get_context("fork")
    found = context.SimpleQueue()
    children = [context.Process(target=lambda: found.put(child())) for _ in range(2)]
    for process in children:
        process.start()
    mine = [signer.sign(DIGEST) for _ in range(20)]
    for process in children:
        process.join(30)
        assert process.exitcode == 0
    theirs = [signature for _ in children for signature in found.get()]
    for signature in mine + theirs:
        signatures.check(signer.public_key_der, DIGEST, signature)


def sign_many(path: Path, count: int, found: "multiprocessing.SimpleQueue") -> None:
    signer = pkcs11.load(path)
    found.put((os.getpid(), [signer.sign(number.to_bytes(32, "big")) for number in range(count)]))


def test_two_processes_sign_with_one_key_at_once(place, tmp_path):
    made = pkcs11.make(place, "secp256k1")
    path = pkcs11.save(made, tmp_path / "ct1")
    context = multiprocessing.get_context("spawn")
    found = context.SimpleQueue()
    processes = [context.Process(target=sign_many, args=(path, 100, found)) for _ in range(2)]
    for process in processes:
        process.start()
    answers = dict(found.get() for _ in processes)
    for process in processes:
        process.join(30)
    assert len(answers) == 2
    for signed in answers.values():
        for number, signature in enumerate(signed):
            signatures.check(made.public_key_der, number.to_bytes(32, "big"), signature)


def test_threads_and_several_tokens_share_a_module(hsm, place):
    other = replace(place, token=hsm.new_token())
    keys = [pkcs11.make(place, "p256"), pkcs11.make(other, "secp256k1")]
    with ThreadPoolExecutor(4) as threads:
        signing = [threads.submit(lambda signer=signer: [signer.sign(DIGEST) for _ in range(50)]) for signer in keys * 2]
    for signer, signed in zip(keys * 2, signing, strict=True):
        for signature in signed.result():
            signatures.check(signer.public_key_der, DIGEST, signature)


# ---- key files ----------------------------------------------------------------------------------------------------------

FILE = {"module": "/usr/lib/module.so", "token": "t", "key_label": "ct1", "pin_env": "TOKEN_PIN", "public_key": ""}
SECRET = "hunter2"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pin": SECRET}, "has a PIN in it"),
        ({"user_pin": SECRET}, "has a PIN in it"),
        ({"pin_file": "/pin"}, "one of the two"),
        ({"pin_env": None}, "one of the two"),
        ({"pin_env": SECRET}, "never holds the PIN"),
        ({"pin_env": "1234"}, "never holds the PIN"),
        ({"pin_env": None, "pin_file": SECRET}, "whole path"),
        ({"module": "module.so"}, "whole path"),
        ({"module": None}, "module is missing"),
        ({"token": ""}, "cannot be empty"),
        ({"key_label": None}, "by its label or its id"),
        ({"key_id": "xyz"}, "in hex"),
        ({"public_key": "zz"}, "in hex"),
        ({"public_key": "00"}, "neither of P-256 nor of secp256k1"),
        ({"public_key": None}, "public_key is missing"),
        ({"token": 1}, "every entry is a text"),
        ({"colour": "red"}, "entries that a key file has not"),
    ],
)
def test_a_key_file_that_says_something_else_is_refused_and_shows_no_pin(tmp_path, change, said):
    import tomli_w

    public = signers.new_key("p256").public_key_der.hex()
    values = {name: value for name, value in (FILE | {"public_key": public} | change).items() if value is not None}
    path = tmp_path / "ct1.pkcs11.toml"
    path.write_text(tomli_w.dumps(values))
    with pytest.raises(FixInput, match=said) as told:
        signers.load(path, "")
    text, error = "", told.value
    while error is not None:
        text, error = f"{text}{error!r}", error.__cause__
    assert SECRET not in text
    assert "1234" not in text


@pytest.mark.parametrize("content", [b"pin = 'hunter2", b"\xff", None])
def test_a_file_that_is_no_key_file_is_refused(tmp_path, content):
    path = tmp_path / "ct1.pkcs11.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ScanSealError, match="no such key file" if content is None else "not a key file") as told:
        signers.load(path, "")
    assert SECRET not in str(told.value)
