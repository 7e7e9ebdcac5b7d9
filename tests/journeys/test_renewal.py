"""Evidence that outlives the hash it was made with: renewed in time on a real chain, refused when it was not."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.core.strict import from_b64, to_b64
from tests.journeys.conftest import Site, add_device, copy_test_file, make_site
from tests.journeys.test_custody import BASIC, add_key

NAMES = ("CT_small.dcm", "JPEG-lossy.dcm", "examples_palette.dcm")
FAR = 4_000_000_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Three sealed images and a de-identified one, their evidence renewed."""
    made = make_site(tmp_path_factory.mktemp("archive"))
    try:
        add_device(made, "ct1", "secp256k1", "4711")
        add_key(made, "gw", "transform,hold")
        for name in NAMES:
            copy_test_file(name, made.folder / "in")
        made.run("seal", "in", "--device", "ct1")
        made.run("derive", "in/CT_small.dcm", "in/child.dcm", *BASIC, "--device", "gw")
        made.run("anchor")
        made.run("bundle", "export", "in", "-o", "old/all.seal.json")
        done = made.json("renew", "in", "--bundle", "old", "-o", "new")
        assert (done["renewed"], done["refused"]) == (4, [])
        yield made
    finally:
        made.run("devnet", "down", expect=None)


def judged(site: Site, folder: Path, bundle: str, fallen: str = "", *, bundle_text: str | None = None) -> dict[str, dict]:
    """Verdicts offline, elsewhere, by a trust file that says what has fallen."""
    shutil.copytree(site.folder / "in", folder / "in", dirs_exist_ok=True)
    text = bundle_text if bundle_text is not None else (site.folder / bundle).read_text()
    (folder / "all.seal.json").write_text(text)
    (folder / "trust.toml").write_text((site.folder / "trust.toml").read_text() + fallen)
    named = ("--bundle", "all.seal.json", "--trust", "trust.toml", "--offline")
    found = Site(folder, 0).json("verify", "in", *named, expect=None, env={"SCANSEAL_SITE": ""})
    return {Path(image["path"]).name: image for image in found["images"]}


def has_fallen(algorithm: str, since: int) -> str:
    return f'\n[[fallen]]\nalgorithm = "{algorithm}"\nsince = {since}\n'


def tokens(found: dict[str, dict]) -> set[str]:
    return {image["verdict"] for image in found.values()}


def test_renewed_evidence_outlives_its_hash_and_the_old_evidence_does_not(site, tmp_path):
    assert tokens(judged(site, tmp_path, "old/all.seal.json")) == {"AUTHENTIC", "DERIVED"}
    assert tokens(judged(site, tmp_path, "new/all.seal.json")) == {"AUTHENTIC", "DERIVED"}
    later = has_fallen("sha256", FAR)
    assert tokens(judged(site, tmp_path, "new/all.seal.json", later)) == {"AUTHENTIC", "DERIVED"}
    unrenewed = judged(site, tmp_path, "old/all.seal.json", later)
    assert tokens(unrenewed) == {"NOT_CHECKED"}
    assert "not renewed" in unrenewed["CT_small.dcm"]["reasons"][0]
    too_late = has_fallen("sha256", int(time.time()) - 86_400)
    assert tokens(judged(site, tmp_path, "new/all.seal.json", too_late)) == {"NOT_CHECKED"}


def test_a_fallen_signature_counts_where_it_was_on_chain_before(site, tmp_path):
    assert tokens(judged(site, tmp_path, "old/all.seal.json", has_fallen("secp256k1", FAR))) == {"AUTHENTIC", "DERIVED"}
    before = has_fallen("secp256k1", int(time.time()) - 86_400)
    assert tokens(judged(site, tmp_path, "old/all.seal.json", before)) == {"NOT_CHECKED"}


@pytest.mark.parametrize("member", ["path", "index", "old_size", "new_size", "block_time", "block_number", "log_id"])
def test_a_damaged_renewal_is_damage(site, tmp_path, member):
    bundle = json.loads((site.folder / "new/all.seal.json").read_text())
    for seal in bundle["seals"]:
        (one,) = seal["renewals"]
        if isinstance(one[member], int):
            one[member] ^= 1
        else:
            data = bytearray(from_b64(one[member]))
            data[0] ^= 1
            one[member] = to_b64(bytes(data))
    assert tokens(judged(site, tmp_path, "", bundle_text=json.dumps(bundle))) == {"NOT_CHECKED"}


def test_the_renewal_of_another_image_is_none(site, tmp_path):
    bundle = json.loads((site.folder / "new/all.seal.json").read_text())
    first, second = bundle["seals"][:2]
    first["renewals"], second["renewals"] = second["renewals"], first["renewals"]
    found = judged(site, tmp_path, "", bundle_text=json.dumps(bundle))
    assert sorted(image["verdict"] for image in found.values()).count("NOT_CHECKED") == 2


def test_renewing_again_changes_nothing_and_what_is_not_in_order_is_refused(site, tmp_path):
    done = site.json("renew", "in", "--bundle", "new", "-o", tmp_path / "again")
    assert (done["renewed"], done["already_renewed"]) == (0, 4)
    copy_test_file("MR_small.dcm", tmp_path)
    done = site.json("renew", tmp_path / "MR_small.dcm", "--bundle", "old", "-o", tmp_path / "again", expect=7)
    assert "UNREGISTERED" in done["refused"][0]["error"]
