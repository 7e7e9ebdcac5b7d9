"""A scanner and a gateway whose keys never leave their token: from the request to the verdict, on a real chain and SoftHSM2."""

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from tests.journeys.conftest import Site, copy_test_file, make_site
from tests.keys.softhsm import PIN, SoftHsm, softhsm

BASIC = ("--profile", "ps3.15-basic", "--patient-id", "S01", "--patient-name", "S01")


@pytest.fixture(scope="module")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    return softhsm(tmp_path_factory.mktemp("hsm") / "softhsm")


@pytest.fixture(scope="module")
def token(hsm: SoftHsm) -> str:
    return hsm.new_token()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, hsm: SoftHsm) -> Iterator[Site]:
    made = make_site(tmp_path_factory.mktemp("hospital"))
    (made.folder / "pin").write_text(PIN)
    try:
        yield made
    finally:
        made.run("devnet", "down", expect=None)


@pytest.fixture
def in_token(hsm: SoftHsm, token: str) -> tuple[object, ...]:
    return ("--pkcs11", hsm.module, "--token", token)


def named(name: str) -> tuple[str, ...]:
    return ("--manufacturer", "Acme", "--model", "CT 3000", "--serial", name, "--ae", name.upper())


def test_a_scanner_and_a_gateway_with_keys_in_hardware_do_all_that_others_do(site, hsm, token, in_token, tmp_path):
    env = hsm.env | {"TOKEN_PIN": PIN}
    made = site.json("device", "request", "ct1", *named("ct1"), *in_token, "--pin-file", "pin", "--curve", "p256", env=env)
    assert (made["token"], made["never_outside"]) == (token, True)
    site.run("device", "request", "gw", *named("gw"), *in_token, "--pin-env", "TOKEN_PIN", env=env)
    person = ("--person", "Ada Lovelace", *in_token, "--pin-file", "pin", "--curve", "p256")
    site.run("device", "request", "ada", *person, env=env)
    site.run("device", "approve", "ct1", "--seals-everything-since", "2024-01-01")
    site.run("device", "approve", "gw", "--roles", "transform,hold")
    site.run("device", "approve", "ada", "--roles", "approve")
    kept = sorted(path.name for path in (site.folder / "keys").iterdir() if path.name not in ("account.json", "log.pem"))
    assert kept == ["ada.pkcs11.toml", "ct1.pkcs11.toml", "gw.pkcs11.toml"]
    assert all(PIN not in (site.folder / "keys" / name).read_text() for name in kept)

    for name in ("CT_small.dcm", "MR_small.dcm"):
        copy_test_file(name, site.folder / "in")
    sealing = env | {"SCANSEAL_PASSPHRASE": ""}
    passphrase = (site.folder / "passphrase").rename(site.folder / "passphrase.away")
    site.run("seal", "in", "--device", "ct1", env=sealing)  # A key in hardware needs nothing that opens the site's own keys.
    passphrase.rename(site.folder / "passphrase")
    site.run("custody", "add", "in", "--action", "stored", "--device", "gw", env=env)
    site.run("derive", "in", "out", *BASIC, "--device", "gw", env=env)
    site.run("esign", "out/CT_small.dcm", "--as", "ada", "--meaning", "reviewed", env=env)
    site.run("anchor")
    assert set(site.verdicts("in").values()) == {"AUTHENTIC"}
    assert set(site.verdicts("out").values()) == {"DERIVED"}
    edited = pydicom.dcmread(site.folder / "in/CT_small.dcm")
    edited.PixelData = bytes([edited.PixelData[0] ^ 1]) + edited.PixelData[1:]
    edited.save_as(tmp_path / "edited.dcm")
    assert site.verdicts(tmp_path / "edited.dcm", expect=1) == {"edited.dcm": "ALTERED"}

    rotated = site.json("device", "rotate", "ct1", "ct1-2027", "--curve", "p256", env=env)
    assert (site.folder / "keys/ct1-2027.pkcs11.toml").exists()
    copy_test_file("examples_palette.dcm", site.folder / "new")
    site.run("seal", "new", "--device", "ct1-2027", env=env)
    assert "retired" in site.run("seal", "new", "--device", "ct1", env=env, expect=2).stderr
    site.run("anchor")
    assert set(site.verdicts("in", "new").values()) == {"AUTHENTIC"}
    listed = {row["key"]: row for row in site.json("device", "list")["keys"]}
    assert listed[rotated["key"]]["name"] == "ct1-2027"


def test_a_wrong_pin_fails_the_command_and_is_not_shown(site, in_token, hsm):
    request = ("device", "request", "ct9", *named("ct9"), *in_token)
    wrong = site.run(*request, "--pin-env", "TOKEN_PIN", env=hsm.env | {"TOKEN_PIN": "hunter2"}, expect=2)
    assert "refuses the PIN from the variable TOKEN_PIN" in wrong.stderr
    assert "hunter2" not in wrong.stderr + wrong.stdout
    assert not list((site.folder / "keys").glob("ct9*"))
    site.run(*request, "--pin-file", "pin", env=hsm.env)


def test_what_is_missing_is_said(site, in_token, hsm):
    request = ("device", "request", "ct8", *named("ct8"))
    assert "--pkcs11" in site.run(*request, "--token", "x", expect=2).stderr
    assert "--token" in site.run(*request, "--pkcs11", hsm.module, expect=2).stderr
    assert "--pin-file or --pin-env" in site.run(*request, *in_token, expect=2).stderr
    elsewhere = site.run(*request, "--pkcs11", hsm.module, "--token", "drawer", "--pin-file", "pin", env=hsm.env, expect=2)
    assert "no token 'drawer'" in elsewhere.stderr
    label = ("--existing-key", "--key-label", "mr7")
    assert "it has label" in site.run(*request, *in_token, "--pin-file", "pin", *label, env=hsm.env, expect=2).stderr


def test_a_device_whose_token_is_away_seals_once_it_is_back(site, in_token, hsm):
    site.run("device", "request", "xr1", *named("xr1"), *in_token, "--pin-file", "pin", "--curve", "p256", env=hsm.env)
    site.run("device", "approve", "xr1")
    image = copy_test_file("examples_jpeg2k.dcm", site.folder / "xr")
    gone = Path(hsm.tokens.rename(hsm.folder / "drawer"))
    hsm.tokens.mkdir()
    assert "no token" in site.run("seal", image, "--device", "xr1", env=hsm.env, expect=2).stderr
    hsm.tokens.rmdir()
    gone.rename(hsm.tokens)
    site.run("seal", image, "--device", "xr1", env=hsm.env)
    site.run("anchor")
    assert site.verdicts(image) == {"examples_jpeg2k.dcm": "AUTHENTIC"}
