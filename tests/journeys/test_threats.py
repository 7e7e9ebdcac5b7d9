"""The threats of DESIGN §10, carried out on a real chain by people who hold what the threat says, judged by the command line.

A thief has a device's key and puts what he signs into the site's own log; a dishonest operator has the log's key; a stranger
has an account on the chain. The verdict is `scanseal verify`'s, by its exit code: 0 only for what an enrolled device sealed.

replayed record                   a_record_replayed_for_another_image_or_another_ledger_proves_nothing
two images in one device slot     two_images_in_one_slot_of_a_device_are_the_end_of_its_key
equivocating log                  an_operator_who_signs_another_history_proves_nothing_with_it
back-dated seal, wrong clock,
gateway as signing oracle         what_thieves_sealed_into_the_sites_own_log_is_never_in_order
stolen key                        an_auditor_learns_of_a_stolen_key_from_the_chain
                                  test_main_job: a_stolen_keys_seals_are_revoked_and_older_ones_stay
swapped patient                   test_main_job: a_swapped_patient_is_a_mismatch_that_names_attributes_and_no_values
rescale, spacing, orientation     test_threats_images: each_changed_attribute_is_named
crop, burn-in, lesion, transcode  test_threats_images: a_changed_picture_is_altered_however_it_is_stored
stripped evidence                 stripped_evidence_never_counts_for_more
                                  test_main_job: a_missing_record_of_a_device_that_seals_everything_is_stripped
squatted hash, griefed batch,
unauthorised anchorer             a_stranger_on_the_chain_can_neither_take_the_log_nor_stop_it
lying RPC                         a_lie_of_a_node_is_never_a_verdict
                                  test_outside: no_lie_and_no_failure_of_a_node_becomes_a_verdict (every lie)
re-org after included             test_outside: an_anchor_that_a_reorg_takes_is_anchored_again
outage                            test_bad_input: a_chain_out_of_reach_is_exit_code_6_and_no_verdict
                                  test_bad_input: sealing_does_not_wait_for_the_chain_and_anchoring_says_when
malicious contract                another_contract_at_the_same_address_is_out_of_reach_and_no_verdict
                                  a_contract_that_says_what_it_is_told_proves_nothing_where_the_real_one_stood
dictionary attack on a leaf       what_is_public_does_not_open_a_leaf_with_few_values
crash at every write              log/test_crashes, test_bad_input: an_interrupt_loses_nothing_and_is_no_verdict
hostile DICOM, hostile JSON       test_bad_input: bad_images_are_not_checked_and_never_anything_else
                                  test_bad_input: a_hostile_bundle_is_one_line_and_exit_code_7
"""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import tomli_w
from pydicom.data import get_testdata_file
from pydicom.uid import UID

from ledger.chain import Endpoint, Nodes
from ledger.core import checkpoint, content, contracts, merkle
from ledger.core.checkpoint import Checkpoint
from ledger.core.errors import NeedPermission
from ledger.core.evidence import RecordPart
from ledger.core.records import SignedRecord
from ledger.core.strict import from_b64, to_b64
from ledger.core.trust import Block, Contract, Trust
from ledger.core.typeddata import keccak256
from ledger.keys import authority, signers
from ledger.keys.signers import SoftwareSigner
from ledger.register import Sealer
from ledger.wiring import assembly, chain
from ledger.wiring import site as sites
from ledger.wiring.images import sealable
from tests.journeys.conftest import SCANSEAL, Site, add_device, make_site
from tests.simulators.rpc import FaultyNode

DAY = 86_400
NOWHERE = bytes(range(32))
OBEDIENT = bytes.fromhex("60016000f3")
"""The code of a contract that is none of ours."""
ANOTHER = Path(__file__).parents[2] / "docs/example/trust.toml"
"""The trust file of another ledger with the same chain id."""


Json = dict[str, Any]
Cases = Mapping[str, tuple[Path, Json]]
"""Name -> an image and the bundle that lies beside it."""


@dataclass
class Scene:
    """A site where honest people and thieves were at work; everything is final on chain."""

    site: Site
    early_trust: Path
    bundles: dict[str, Json]

    @property
    def trust(self) -> Path:
        return self.site.folder / "trust.toml"

    def image(self, name: str) -> Path:
        return self.site.folder / "images" / f"{name}.dcm"

    def bundle(self, name: str) -> Json:
        """The evidence of one image."""
        return deepcopy(self.bundles[name])

    @property
    def ledger_trust(self) -> Trust:
        return sites.read_trust(self.trust)

    def judged(self, folder: Path, cases: Cases, *more: str, trust: Path | None = None) -> dict[str, tuple[int, str]]:
        """Name -> (exit code, verdict) of each image beside its bundle, for someone who has these, a trust file and no site."""
        return {name: (one["exit_code"], one["verdict"]) for name, one in self.told(folder, cases, *more, trust=trust).items()}

    def told(self, folder: Path, cases: Cases, *more: str, trust: Path | None = None) -> dict[str, Json]:
        """The same with all that the command says of each."""
        folder.mkdir(parents=True)
        for name, (image, bundle) in cases.items():
            shutil.copyfile(image, folder / f"{name}.dcm")
            (folder / f"{name}.dcm.seal.json").write_text(json.dumps(bundle))
        command = [*SCANSEAL, "verify", ".", "--trust", str(trust or self.trust), "--json", *more]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
        assert done.stdout, done.stderr
        assert "Traceback" not in done.stderr
        answer = json.loads(done.stdout)
        codes = {one["exit_code"] for one in answer["images"]}
        assert done.returncode == answer["exit_code"]
        assert done.returncode in codes - {0} or codes == {0}
        return {Path(one["path"]).stem: one for one in answer["images"]}


def written(trust: Trust, folder: Path) -> Path:
    path = folder / "trust.toml"
    path.write_text(tomli_w.dumps(trust.model_dump(mode="json"), multiline_strings=True))
    return path


@cache
def signer_of(folder: Path, device: str) -> SoftwareSigner:
    here = sites.read_site(folder)
    return signers.load(here.device_key_path(device), here.passphrase())


def made(path: Path) -> Path:
    """A CT image with a SOPInstanceUID and a noise of its own."""
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    number = int.from_bytes(hashlib.sha256(path.stem.encode()).digest()[:6], "big")
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(f"1.2.826.{number}")
    noise = np.random.default_rng(number).integers(0, 4, (dataset.Rows, dataset.Columns), dtype=np.int16)
    dataset.PixelData = (dataset.pixel_array + noise).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path)
    return path


def sealed_by_hand(site: Site, path: Path, device: str, clock_off_s: int = 0, beacon_hash: bytes | None = None) -> None:
    """Signs with a device's key whatever its holder likes, with a clock that is off, and queues it for the log."""
    with assembly.opened(sites.read_site(site.folder)) as store:
        known = store.anchors.newest_header()
        assert known is not None
        beacon, beacon_time = known
        sealer = Sealer(
            store.journal, signer_of(site.folder, device), store.site.trust().domain, lambda: beacon_time + clock_off_s
        )
        (found,) = assembly.images([str(path)])
        sealer.seal([sealable(found.read())], replace(beacon, hash=beacon_hash or beacon.hash), 0)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    site = make_site(tmp_path_factory.mktemp("robbed"))
    try:
        add_device(site, "ct1", "secp256k1", "4711")
        add_device(site, "lost", "p256", "4712")
        add_device(site, "gateway", "p256", "9000", "--roles", "hold")
        images = site.folder / "images"
        site.run("seal", *(made(images / f"{name}.dcm") for name in ("honest", "other")), "--device", "ct1")
        sealed_by_hand(site, made(images / "early.dcm"), "lost")
        sealed_by_hand(site, made(images / "forwarded.dcm"), "gateway")
        sealed_by_hand(site, made(images / "backdated.dcm"), "ct1", -30 * DAY)
        sealed_by_hand(site, made(images / "postdated.dcm"), "ct1", 30 * DAY)
        sealed_by_hand(site, made(images / "beaconless.dcm"), "ct1", -30 * DAY, NOWHERE)
        site.run("anchor")
        early_trust = shutil.copyfile(site.folder / "trust.toml", site.folder / "early.toml")
        site.run("device", "revoke", "lost", "--compromised-since", "now")
        sealed_by_hand(site, made(images / "late.dcm"), "lost")
        site.run("anchor")
        site.run("bundle", "export", *images.glob("*.dcm"), "-o", site.folder / "bundles")
        bundles = {
            path.name.split(".")[0]: json.loads(path.read_text()) for path in (site.folder / "bundles").glob("*.seal.json")
        }
        yield Scene(site, early_trust, bundles)
    finally:
        site.run("devnet", "down", expect=None)


# ---- the device's key -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offline", [(), ("--offline",)], ids=["online", "offline"])
def test_what_thieves_sealed_into_the_sites_own_log_is_never_in_order(scene: Scene, offline: tuple[str, ...]) -> None:
    found = {Path(one["path"]).stem: one for one in scene.site.json("verify", "images", *offline, expect=1)["images"]}
    verdicts = {name: one["verdict"] for name, one in found.items()}
    assert verdicts == {
        "honest": "AUTHENTIC",
        "other": "AUTHENTIC",
        "early": "AUTHENTIC",
        "late": "REVOKED",
        "forwarded": "REVOKED",
        "backdated": "MISMATCH",
        "postdated": "MISMATCH",
        "beaconless": "AUTHENTIC",
    }
    for name in ("backdated", "postdated"):
        assert "claimedTime" in found[name]["reasons"][0]
    assert "may not acquire" in found["forwarded"]["reasons"][0]
    # A beacon that is no block of this chain proves no lower bound, whatever time the device claims.
    assert found["beaconless"]["sealed_between"][0] is None
    assert found["honest"]["sealed_between"][0] is not None


def test_an_auditor_learns_of_a_stolen_key_from_the_chain(scene: Scene, tmp_path: Path) -> None:
    trust = Path(shutil.copyfile(scene.early_trust, tmp_path / "trust.toml"))
    cases = {name: (scene.image(name), scene.bundle(name)) for name in ("early", "late")}
    found = scene.judged(tmp_path / "before", cases, "--offline", trust=trust)
    assert found == {"early": (0, "AUTHENTIC"), "late": (6, "NOT_CHECKED")}, "the late block is not in the old trust file"
    scene.site.run("trust", "update", trust, "--bundle", tmp_path / "before")
    found = scene.judged(tmp_path / "after", cases, "--offline", trust=trust)
    assert found == {"early": (0, "AUTHENTIC"), "late": (1, "REVOKED")}


def test_two_images_in_one_slot_of_a_device_are_the_end_of_its_key(scene: Scene, tmp_path: Path) -> None:
    bundle = scene.bundle("honest")
    (seal,) = bundle["seals"]
    rival = seal | {"included": None, "record": seal["record"] | {"content": to_b64(NOWHERE)}}
    record_id = RecordPart.model_validate(rival["record"]).value.id(scene.ledger_trust.domain)
    cases = {
        name: (scene.image("honest"), bundle | {"seals": [seal, rival | {"signature": to_b64(signer.sign(record_id))}]})
        for name, signer in (("stranger", signers.new_key("secp256k1")), ("thief", signer_of(scene.site.folder, "ct1")))
    }
    found = scene.judged(tmp_path / "1", cases, "--offline")
    assert found == {"stranger": (0, "AUTHENTIC"), "thief": (1, "REVOKED")}


# ---- evidence -------------------------------------------------------------------------------------------------------


def test_a_record_replayed_for_another_image_or_another_ledger_proves_nothing(scene: Scene, tmp_path: Path) -> None:
    honest, other = (scene.bundle(name) for name in ("honest", "other"))
    opening = {name: other["seals"][0][name] for name in ("leaves", "image_key", "find")}
    mixed = honest | {"seals": [honest["seals"][0] | opening], "studies": other["studies"]}
    cases = {"moved": (made(tmp_path / "x.dcm"), honest), "mixed": (scene.image("other"), mixed)}
    found = scene.judged(tmp_path / "1", cases, "--offline")
    assert found == {"moved": (3, "UNREGISTERED"), "mixed": (7, "NOT_CHECKED")}
    trust = sites.read_trust(ANOTHER)
    renamed = {
        "chain_id": trust.chain_id,
        "anchor_log": to_b64(trust.anchor_log.address),
        "device_registry": to_b64(trust.device_registry.address),
        "origin": trust.logs[0].origin,
        "log_id": to_b64(trust.logs[0].log_id),
        "log_key": to_b64(trust.logs[0].key),
    }
    cases = {"as it is": (scene.image("honest"), honest), "renamed": (scene.image("honest"), honest | {"ledger": renamed})}
    found = scene.judged(tmp_path / "2", cases, "--offline", trust=ANOTHER)
    assert found == dict.fromkeys(cases, (7, "NOT_CHECKED"))


def test_stripped_evidence_never_counts_for_more(scene: Scene, tmp_path: Path) -> None:
    bundle, image = scene.bundle("honest"), scene.image("honest")
    (seal,) = bundle["seals"]
    cases = {
        "no seal": (image, bundle | {"seals": [], "headers": []}),
        "no inclusion": (image, bundle | {"seals": [seal | {"included": None}]}),
        "no certificate": (image, bundle | {"certificates": []}),
        "no state": (image, bundle | {"states": [bundle["states"][0] | {"nodes": []}]}),
    }
    assert scene.judged(tmp_path / "1", cases, "--offline") == {
        "no seal": (3, "UNREGISTERED"),
        "no inclusion": (4, "PENDING"),
        "no certificate": (7, "NOT_CHECKED"),
        "no state": (7, "NOT_CHECKED"),
    }


def another_history(scene: Scene) -> tuple[Json, Checkpoint]:
    """What a log's operator makes up: a tree that has the honest record alone, signed with the log's key; as a bundle."""
    here = sites.read_site(scene.site.folder)
    log_key = authority.load_log_key(here.log_key_path, here.passphrase())
    bundle = scene.bundle("honest")
    (seal,), (anchor,) = bundle["seals"], bundle["anchors"]
    entry = SignedRecord(RecordPart.model_validate(seal["record"]).value, from_b64(seal["signature"])).entry()
    forged = Checkpoint(here.origin, 1, merkle.leaf_hash(entry))
    note = checkpoint.sign(forged, authority.log_public_key(log_key), log_key.sign)
    included = seal | {"included": {"anchor": 0, "index": 0, "path": ""}}
    return bundle | {"seals": [included], "anchors": [anchor | {"checkpoint": note}]}, forged


def test_an_operator_who_signs_another_history_proves_nothing_with_it(scene: Scene, tmp_path: Path) -> None:
    forged, _ = another_history(scene)
    found = scene.told(tmp_path / "1", {"forged": (scene.image("honest"), forged)}, "--offline")["forged"]
    assert (found["exit_code"], found["verdict"]) == (7, "NOT_CHECKED")
    assert "state proof" in found["reasons"][0]


def test_what_is_public_does_not_open_a_leaf_with_few_values(scene: Scene, tmp_path: Path) -> None:
    """An attacker with mirror and bundle, but without `image_key`, tries every sex under every key that he can think of."""
    scene.site.run("log", "export", tmp_path / "mirror")
    public = b"".join(path.read_bytes() for path in sorted((tmp_path / "mirror").rglob("*")) if path.is_file())
    first, second = (scene.bundle(name) for name in ("honest", "other"))
    leaves, others = (content_leaves(bundle) for bundle in (first, second))
    at = content.ITEMS.index("PatientSex")
    assert leaves[at] != others[at], "the same value in two images must not show as the same leaf"
    record = first["seals"][0]["record"]
    known = [from_b64(record[name]) for name in ("content", "key", "previous", "beacon_hash")]
    known += [from_b64(one) for one in first["studies"]] + [bytes(32), hashlib.sha256(b"").digest()]
    assert not any(opened(leaves[at], key[:16], sex) for key in known for sex in ("M", "F", "O", None))
    dataset = pydicom.dcmread(scene.image("honest"))
    assert opened(leaves[at], from_b64(first["seals"][0]["image_key"]), dataset.PatientSex)
    for value in (str(dataset.PatientName), dataset.PatientID, dataset.StudyInstanceUID, dataset.SOPInstanceUID):
        for hashed in (
            value.encode(),
            hashlib.sha256(value.encode()).digest(),
            hashlib.sha256(b"\0" + value.encode()).digest(),
        ):
            assert hashed not in public


def opened(leaf: bytes, image_key: bytes, sex: str | None) -> bool:
    """Whether a leaf is that of this PatientSex, by the words of FORMAT.md §2."""
    salt = hmac.digest(image_key, b"PatientSex", "sha256")[:16]
    value = b"\0" if sex is None else b"\1" + sex.encode()
    return leaf == hashlib.sha256(b"\0" + salt + b"\x0aPatientSex" + value).digest()


def content_leaves(bundle: Json) -> list[bytes]:
    data = from_b64(bundle["seals"][0]["leaves"])
    return [data[start : start + 32] for start in range(0, len(data), 32)]


# ---- the chain ------------------------------------------------------------------------------------------------------


def test_a_stranger_on_the_chain_can_neither_take_the_log_nor_stop_it(scene: Scene, tmp_path: Path) -> None:
    here = sites.read_site(scene.site.folder)
    stranger, (log,) = signers.new_account(), scene.ledger_trust.logs
    node = Endpoint(here.rpc[0])
    node.call("anvil_setBalance", stranger.address, hex(10**20))
    node.call("evm_mine")
    ledger = chain.connect(here.rpc, scene.ledger_trust, stranger)
    squatted = ledger.open_log(log.key)
    assert squatted != log.log_id, "the log's id names its owner"
    size = ledger.anchored_size(log.log_id)
    with pytest.raises(NeedPermission, match="NotAnchorer"):
        ledger.anchor(log.log_id, size, size + 1, NOWHERE, [])
    with pytest.raises(NeedPermission, match="NotOwner"):
        ledger.set_anchorer(log.log_id, bytes.fromhex(stranger.address[2:]))
    sealed_by_hand(scene.site, made(tmp_path / "next.dcm"), "ct1")
    with assembly.opened(here) as store:
        (entry,) = store.journal.queued_entries(2)
    # What the site anchors next is on chain before it, as a stranger's root and leaf.
    ledger.anchor(squatted, 0, 1, merkle.leaf_hash(entry), [], leaves=[merkle.leaf_hash(entry)])
    scene.site.run("anchor")
    assert ledger.anchored_size(log.log_id) == size + 1
    bundle = scene.bundle("honest")
    cases = {
        "squatted": (scene.image("honest"), bundle | {"ledger": bundle["ledger"] | {"log_id": to_b64(squatted)}}),
        "own": (scene.image("honest"), bundle),
    }
    assert scene.judged(tmp_path / "1", cases) == {"squatted": (7, "NOT_CHECKED"), "own": (0, "AUTHENTIC")}
    assert scene.site.verdicts(tmp_path / "next.dcm") == {"next.dcm": "AUTHENTIC"}


@pytest.mark.parametrize("fault", ["wrong chain id", "false root", "false head"])
def test_a_lie_of_a_node_is_never_a_verdict(scene: Scene, tmp_path: Path, fault: str) -> None:
    with FaultyNode(f"http://127.0.0.1:{scene.site.port}") as node:
        node.fault = fault
        trust = written(scene.ledger_trust.model_copy(update={"rpc": (node.url,), "blocks": ()}), tmp_path)
        cases = {name: (scene.image(name), scene.bundle(name)) for name in ("honest", "late")}
        found = scene.judged(tmp_path / "1", cases, trust=trust)
    assert found == dict.fromkeys(cases, (6, "NOT_CHECKED"))


def test_another_contract_at_the_same_address_is_out_of_reach_and_no_verdict(scene: Scene, tmp_path: Path) -> None:
    trust, node = scene.ledger_trust, Endpoint(f"http://127.0.0.1:{scene.site.port}")
    cases = {"honest": (scene.image("honest"), scene.bundle("honest"))}
    for name in ("anchor_log", "device_registry"):
        address = "0x" + getattr(trust, name).address.hex()
        code = node.call("eth_getCode", address, "latest")
        try:
            node.call("anvil_setCode", address, "0x" + OBEDIENT.hex())
            node.call("evm_mine")
            assert scene.judged(tmp_path / name, cases) == {"honest": (6, "NOT_CHECKED")}
        finally:
            node.call("anvil_setCode", address, code)
            node.call("evm_mine")


def test_a_contract_that_says_what_it_is_told_proves_nothing_where_the_real_one_stood(scene: Scene, tmp_path: Path) -> None:
    """The operator's other history on a chain where the AnchorLog's address has its storage as he likes. With the code that the
    trust file names only a chain that is false itself could hold it, and then it is believed: all else about it is right."""
    trust, node = scene.ledger_trust, Endpoint(f"http://127.0.0.1:{scene.site.port}")
    address = "0x" + trust.anchor_log.address.hex()
    forged, signed = another_history(scene)
    anchor = forged["anchors"][0] | {"old_size": 0, "beacons": []}
    times = (0, anchor["block_number"], anchor["block_time"])
    slot = contracts.anchor_slot(trust.logs[0].log_id, 1)
    stored = contracts.anchor_commitment(signed.root, *times, [])
    key_slots = contracts.key_slots(from_b64(forged["seals"][0]["record"]["key"]))
    before = node.call("evm_snapshot")
    cases: dict[str, tuple[Path, Json]] = {}
    blocks: list[Block] = []
    try:
        for name, code in (("same code", None), ("other code", OBEDIENT)):
            if code is not None:
                node.call("anvil_setCode", address, "0x" + code.hex())
            node.call("anvil_setStorageAt", address, "0x" + slot.hex(), "0x" + stored.hex())
            node.call("evm_mine")
            there = trust.anchor_log if code is None else Contract(address=trust.anchor_log.address, code_hash=keccak256(code))
            number = int(node.call("eth_blockNumber"), 16)
            state = Nodes([node]).state(number, {there: [slot], trust.device_registry: key_slots})
            blocks.append(Block(number=number, hash=state.header.hash))
            bundle = forged | {"anchors": [anchor], "states": [json.loads(state.proof.model_dump_json())]}
            cases[name] = (scene.image("honest"), bundle)
    finally:
        assert node.call("evm_revert", before)
    misled = written(trust.model_copy(update={"blocks": tuple(blocks)}), tmp_path)
    found = scene.judged(tmp_path / "1", cases, "--offline", trust=misled)
    assert found == {"same code": (0, "AUTHENTIC"), "other code": (7, "NOT_CHECKED")}
