"""Evidence that outlives SHA-256: renewed in time on a real chain, by the site or by a stranger; refused when it was not."""

import json
import shutil
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from tests.journeys.conftest import Site, add_device, copy_test_file, make_site
from tests.journeys.test_custody import BASIC, add_key

NAMES = ("CT_small.dcm", "JPEG-lossy.dcm", "examples_palette.dcm")
IN_ORDER = {"AUTHENTIC", "DERIVED"}
FAR = 4_000_000_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Three sealed images and a de-identified one, stored; their evidence before renewal and after, each image's in a file."""
    made = make_site(tmp_path_factory.mktemp("archive"))
    try:
        add_device(made, "ct1", "secp256k1", "4711")
        add_key(made, "gw", "transform,hold")
        for name in NAMES:
            copy_test_file(name, made.folder / "in")
        made.run("seal", "in", "--device", "ct1")
        made.run("derive", "in/CT_small.dcm", "in/child.dcm", *BASIC, "--device", "gw")
        made.run("custody", "add", "in", "--action", "stored", "--device", "gw")
        made.run("anchor")
        made.run("bundle", "export", "in", "-o", "old")
        shutil.copy(made.folder / "trust.toml", made.folder / "old-trust.toml")
        done = made.json("renew", "in", "--bundle", "old", "-o", "new")
        assert [image["renewed"] for image in done["images"]] == ["now"] * 4
        # Four images; child's parent, once more; four steps, and the parent's in the child's bundle, where it is of its trail.
        assert (done["files"], done["batch"]["final"]) == (4, True)
        yield made
    finally:
        made.run("devnet", "down", expect=None)


def has_fallen(algorithm: str, since: int) -> str:
    return f'\n[[fallen]]\nalgorithm = "{algorithm}"\nsince = {since}\n'


def judged(
    site: Site, folder: Path, bundles: Path | str, fallen: str = "", *, images: Path | str = "in", trust: str = "trust.toml"
) -> dict[str, dict]:
    """Verdicts offline, elsewhere, by a trust file that says what has fallen."""
    shutil.copytree(site.folder / images, folder / "in", dirs_exist_ok=True)
    shutil.copytree(site.folder / bundles, folder / "evidence", dirs_exist_ok=True)
    (folder / "trust.toml").write_text((site.folder / trust).read_text() + fallen)
    named = ("--bundle", "evidence", "--trust", "trust.toml", "--offline")
    found = Site(folder, 0).json("verify", "in", *named, expect=None, env={"SCANSEAL_SITE": ""})
    return {Path(image["path"]).name: image for image in found["images"]}


def tokens(found: dict[str, dict]) -> set[str]:
    return {image["verdict"] for image in found.values()}


def renewal_of(file: Path) -> dict:
    (renewal,) = json.loads(file.read_text())["renewals"]
    return renewal


# ---- verifying ----


def test_renewed_evidence_outlives_its_hash_and_the_old_evidence_does_not(site, tmp_path):
    soon = has_fallen("sha256", int(time.time()) + 60)
    assert tokens(judged(site, tmp_path / "1", "new")) == IN_ORDER
    assert tokens(judged(site, tmp_path / "2", "new", soon)) == IN_ORDER
    unrenewed = judged(site, tmp_path / "3", "old", soon)
    assert {(image["verdict"], image["exit_code"]) for image in unrenewed.values()} == {("NOT_CHECKED", 7)}
    assert "scanseal renew" in unrenewed["CT_small.dcm"]["reasons"][0]


def test_a_late_renewal_is_none(site, tmp_path):
    at = renewal_of(site.folder / "new/CT_small.dcm.seal.json")["block_time"]
    assert tokens(judged(site, tmp_path / "1", "new", has_fallen("sha256", at + 1))) == IN_ORDER
    late = judged(site, tmp_path / "2", "new", has_fallen("sha256", at))
    assert {(image["verdict"], image["exit_code"]) for image in late.values()} == {("NOT_CHECKED", 7)}
    assert "too late" in late["CT_small.dcm"]["reasons"][0]


def test_custody_that_was_renewed_stays_in_order(site, tmp_path):
    judged(site, tmp_path, "new", has_fallen("sha256", FAR))
    for bundles, word in ((tmp_path / "evidence", "COMPLETE"), (site.folder / "old", "NOT_CHECKED")):
        named = ("--bundle", bundles, "--trust", tmp_path / "trust.toml", "--offline")
        (image,) = site.json("custody", "verify", tmp_path / "in/child.dcm", *named, expect=None)["images"]
        assert word in (image["custody"], image["verdict"])


def test_who_has_an_older_trust_file_loses_nothing_until_the_hash_falls(site, tmp_path):
    assert tokens(judged(site, tmp_path / "1", "new", trust="old-trust.toml")) == IN_ORDER
    found = judged(site, tmp_path / "2", "new", has_fallen("sha256", FAR), trust="old-trust.toml")
    assert {(image["verdict"], image["exit_code"]) for image in found.values()} == {("NOT_CHECKED", 6)}


def test_online_the_chain_vouches_for_the_renewals_block(site, tmp_path):
    (tmp_path / "trust.toml").write_text((site.folder / "old-trust.toml").read_text() + has_fallen("sha256", FAR))
    found = site.json("verify", "in", "--bundle", "new", "--trust", tmp_path / "trust.toml", env={"SCANSEAL_SITE": ""})
    assert {image["verdict"] for image in found["images"]} == IN_ORDER


def test_an_image_that_was_changed_is_still_called_so(site, tmp_path):
    for name, change in (("altered.dcm", "pixels"), ("swapped.dcm", "patient")):
        dataset = pydicom.dcmread(site.folder / "in/CT_small.dcm")
        if change == "pixels":
            dataset.PixelData = bytes([dataset.PixelData[0] ^ 1]) + dataset.PixelData[1:]
        else:
            dataset.PatientID = "4712"
        (tmp_path / "changed").mkdir(exist_ok=True)
        dataset.save_as(tmp_path / "changed" / name)
    for number, fallen in enumerate(("", has_fallen("sha256", FAR))):
        found = judged(site, tmp_path / str(number), "new", fallen, images=tmp_path / "changed")
        assert (found["altered.dcm"]["verdict"], found["swapped.dcm"]["verdict"]) == ("ALTERED", "MISMATCH")


def test_another_images_renewal_is_none(site, tmp_path):
    shutil.copytree(site.folder / "new", tmp_path / "swapped")
    files = [tmp_path / "swapped" / f"{name}.seal.json" for name in NAMES[1:]]
    first, second = (json.loads(file.read_text()) for file in files)
    one, other = first["seals"][0], second["seals"][0]
    one["renewed"], other["renewed"] = other["renewed"], one["renewed"]
    for file, bundle in zip(files, (first, second), strict=True):
        file.write_text(json.dumps(bundle))
    for number, fallen in enumerate(("", has_fallen("sha256", FAR))):
        found = judged(site, tmp_path / str(number), tmp_path / "swapped", fallen)
        assert [found[name]["verdict"] for name in NAMES] == ["AUTHENTIC", "NOT_CHECKED", "NOT_CHECKED"]


def test_a_fallen_signature_counts_where_it_was_on_chain_before(site, tmp_path):
    assert tokens(judged(site, tmp_path / "1", "old", has_fallen("secp256k1", int(time.time()) + 60))) == IN_ORDER
    found = judged(site, tmp_path / "2", "old", has_fallen("secp256k1", int(time.time()) - 86_400))
    assert {(image["verdict"], image["exit_code"]) for image in found.values()} == {("NOT_CHECKED", 7)}


# ---- renewing ----


def test_a_second_run_changes_nothing_and_sends_nothing(site, tmp_path):
    before = {file.name: file.read_bytes() for file in (site.folder / "new").iterdir()}
    done = site.json("renew", "in", "--bundle", "old", "-o", "new")
    assert [image["renewed"] for image in done["images"]] == ["before"] * 4
    assert (done["batch"]["records"], done["files"]) == (0, 0)
    assert {file.name: file.read_bytes() for file in (site.folder / "new").iterdir()} == before
    # What was renewed elsewhere is taken over as it is.
    done = site.json("renew", "in", "--bundle", "new", "-o", tmp_path / "copy")
    assert (done["batch"]["records"], done["files"]) == (0, 4)


def test_a_run_that_was_cut_off_after_its_transaction_finds_its_batch_on_chain(site, tmp_path):
    done = site.json("renew", "in", "--bundle", "old", "-o", tmp_path / "again")
    ours = renewal_of(site.folder / "new/CT_small.dcm.seal.json")
    assert done["batch"]["block"] == ours["block_number"]
    assert (done["files"], [image["renewed"] for image in done["images"]]) == (4, ["now"] * 4)
    (tmp_path / "again/CT_small.dcm.seal.json").unlink()
    done = site.json("renew", "in", "--bundle", "old", "-o", tmp_path / "again")
    assert sorted(image["renewed"] for image in done["images"]) == ["before", "before", "before", "now"]
    assert tokens(judged(site, tmp_path, tmp_path / "again", has_fallen("sha256", FAR))) == IN_ORDER


def test_a_stranger_renews_with_an_account_of_their_own_when_the_fall_was_announced(site, tmp_path):
    node = f"http://127.0.0.1:{site.port}"
    made = tmp_path / "cro"
    stranger = Site(made, site.port)
    site.run("init", made, "--name", "CRO", "--rpc", node, "--keep-passphrase")
    (made / "trust.toml").write_text((site.folder / "old-trust.toml").read_text() + has_fallen("sha256", FAR))
    account = "0x" + json.loads((made / "keys/account.json").read_text())["address"].removeprefix("0x")
    # A balance that is set comes into a block, and so under a state root, with the next one.
    for method, params in (("anvil_setBalance", [account, hex(10**20)]), ("evm_mine", [])):
        call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        request = urllib.request.Request(node, json.dumps(call).encode(), {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=10).read()
    done = stranger.json("renew", site.folder / "in", "--bundle", site.folder / "old", "-o", "new")
    assert [image["renewed"] for image in done["images"]] == ["now"] * 4
    ours, theirs = (renewal_of(folder / "new/CT_small.dcm.seal.json") for folder in (site.folder, made))
    assert ours["log_id"] != theirs["log_id"]
    shutil.copytree(site.folder / "in", made / "in")
    assert set(stranger.verdicts("in", "--bundle", "new", "--offline").values()) == IN_ORDER


def test_one_bundle_of_all_goes_into_a_file_and_bundles_beside_the_images_are_found(site, tmp_path):
    shutil.copytree(site.folder / "in", tmp_path / "study")
    site.run("bundle", "export", tmp_path / "study", "-o", tmp_path / "study/all.seal.json")
    done = site.json("renew", tmp_path / "study", "-o", tmp_path / "renewed.json")
    assert done["files"] == 1
    (tmp_path / "one").mkdir()
    shutil.copy(tmp_path / "renewed.json", tmp_path / "one")
    shutil.move(tmp_path / "one/renewed.json", tmp_path / "one/all.seal.json")
    assert tokens(judged(site, tmp_path, tmp_path / "one", has_fallen("sha256", FAR))) == IN_ORDER


def test_what_is_not_in_order_is_named_and_not_renewed(site, tmp_path):
    copy_test_file("MR_small.dcm", tmp_path / "mixed")
    shutil.copy(site.folder / "in/JPEG-lossy.dcm", tmp_path / "mixed")
    (tmp_path / "mixed/torn.dcm").write_bytes((site.folder / "in/CT_small.dcm").read_bytes()[:3000])
    done = site.json("renew", tmp_path / "mixed", "--bundle", "old", "-o", tmp_path / "out", expect=7)
    found = {Path(image["path"]).name: (image["verdict"], image["renewed"]) for image in done["images"]}
    assert found["JPEG-lossy.dcm"] == ("AUTHENTIC", "now")
    assert found["MR_small.dcm"] == ("UNREGISTERED", None)
    assert found["torn.dcm"] == ("NOT_CHECKED", None)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["JPEG-lossy.dcm.seal.json"]
    said = site.run("renew", tmp_path / "mixed/MR_small.dcm", "--bundle", "old", "-o", tmp_path / "out", expect=3).stdout
    assert "not renewed" in said


def test_a_renewed_bundle_is_not_overwritten_by_another_ones(site, tmp_path):
    (tmp_path / "out").mkdir()
    shutil.copy(site.folder / "old/JPEG-lossy.dcm.seal.json", tmp_path / "out/CT_small.dcm.seal.json")
    named = ("renew", "in/CT_small.dcm", "--bundle", "old/CT_small.dcm.seal.json", "-o", tmp_path / "out")
    assert "not overwritten" in site.run(*named, expect=2).stderr


def test_after_the_fall_nothing_is_renewed_any_more(site, tmp_path):
    trust = site.folder / "trust.toml"
    kept = trust.read_text()
    try:
        trust.write_text(kept + has_fallen("sha256", int(time.time()) - 86_400))
        assert "proves nothing" in site.run("renew", "in", "--bundle", "old", "-o", tmp_path, expect=2).stderr
    finally:
        trust.write_text(kept)
