"""The benchmark of keys runs, on sizes that say nothing, and prints its ratios: so that it does not rot."""

import json

import pytest

from benchmarks import keys
from ledger.keys import pkcs11
from ledger.keys.pkcs11 import Place
from tests.keys.softhsm import PIN, softhsm


def test_keys_on_a_token_are_measured_beside_keys_in_memory(capsys, tmp_path, monkeypatch):
    hsm = softhsm(tmp_path / "hsm")
    monkeypatch.setenv("SOFTHSM2_CONF", "")  # The benchmark sets it; it is put back after the test.
    keys.main(["--signatures", "5", "--rounds", "1", "--json"])
    measured = json.loads(capsys.readouterr().out)["keys"]
    assert list(measured) == ["p256", "secp256k1"]
    for rows in measured.values():
        assert list(rows) == ["memory", "token", "check"]
        assert all(row["per_s"] > 0 for row in rows.values())
        assert rows["memory"]["x_memory"]["median"] == 1
    monkeypatch.setenv("SOFTHSM2_CONF", hsm.env["SOFTHSM2_CONF"])
    (tmp_path / "pin").write_text(PIN)
    own = pkcs11.save(
        pkcs11.make(Place(hsm.module, hsm.new_token(), "ct1", pin_file=tmp_path / "pin"), "p256"), tmp_path / "ct1"
    )
    keys.main(["--signatures", "5", "--rounds", "1", "--key", str(own)])
    assert "x the time of memory" in capsys.readouterr().out


def test_a_missing_softhsm2_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="SoftHSM2 is missing"):
        keys.main([])
