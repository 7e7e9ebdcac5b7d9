"""Two sites hand in to one log node, which anchors for both: as their people do it, with the real server and a real chain."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest

from tests.journeys.agents import until
from tests.journeys.conftest import SCANSEAL, Site, copy_test_file, free_port, make_site


@contextmanager
def serving(site: Site, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`scanseal serve` in the background; killed at the end."""
    log = (site.folder / "serve.log").open("ab")
    process = subprocess.Popen(
        [*SCANSEAL, "serve", "--listen", f"127.0.0.1:{port}"],
        env=os.environ | {"SCANSEAL_SITE": str(site.folder)},
        stderr=log,
    )
    try:
        until(lambda: site.run("log", "status", expect=None).returncode == 0 and _answers(port), "the node answers")
        yield process
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    import urllib.request

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, int]]:
    """A node's site; the port that it serves on."""
    made = make_site(tmp_path_factory.mktemp("node") / "node")
    (made.folder / "site.toml").open("a").write("\n[anchoring]\ninterval_s = 1\n")
    try:
        yield made, free_port()
    finally:
        made.run("devnet", "down", expect=None)


def join(node: Site, port: int, folder: Path, name: str) -> Site:
    """A site of the node with one certified scanner, as both its people and the node's operator do it."""
    token = node.run("node", "client", "add", name).stdout
    folder.parent.mkdir(parents=True, exist_ok=True)
    (folder.parent / "token").write_text(token)
    made = Site(folder, node.port)
    folder.mkdir()
    given = ("--token-file", folder.parent / "token", "--trust", node.folder / "trust.toml", "--keep-passphrase")
    made.run("init", folder, "--name", name, "--node", f"http://127.0.0.1:{port}", *given)
    named = ("--manufacturer", "Acme", "--model", "CT 3000", "--serial", name[-1], "--ae", "CT1")
    made.run("device", "request", "ct1", *named)
    sent = node.folder / f"{name[-1].lower()}-ct1.csr"
    shutil.copyfile(folder / "devices" / "ct1.csr", sent)
    node.run("device", "approve", sent)
    made.run("device", "adopt", node.folder / "devices" / f"{name[-1].lower()}-ct1.pem")
    return made


def image(folder: Path, number: int) -> Path:
    path = copy_test_file("CT_small.dcm", folder).rename(folder / f"{number}.dcm")
    dataset = pydicom.dcmread(path)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3680043.8.498.{number}"
    dataset.PixelData = number.to_bytes(2, "little") + dataset.PixelData[2:]
    dataset.save_as(path)
    return path


def test_two_sites_hand_in_to_one_node_and_every_image_is_authentic(node: tuple[Site, int], tmp_path: Path) -> None:
    there, port = node
    with serving(there, port) as process:
        sites = [join(there, port, tmp_path / name / "site", f"Site {name}") for name in ("A", "B")]
        for number, site in enumerate(sites):
            paths = [image(site.folder / "images", 10 * number + one) for one in range(3)]
            site.run("seal", *paths, "--device", "ct1")
            assert site.verdicts("images", expect=4) == {path.name: "PENDING" for path in paths}
        for number, site in enumerate(sites):
            told = site.json("anchor")
            assert told["sequenced"] == 3
            assert set(site.verdicts("images").values()) == {"AUTHENTIC"}
            assert set(site.verdicts("images", "--offline").values()) == {"AUTHENTIC"}, "the block was seen here"
            status = site.json("log", "status")
            assert (status["queued"], status["log_size"]) == (0, 3 * (number + 1) if number else status["log_size"])
        # Both have the same log, whole: neither could be shown another one.
        sizes = [site.run("log", "check").stdout for site in sites]
        assert sizes[0].split()[:1] == sizes[1].split()[:1]
        # The node goes away and comes back: what is sealed meanwhile waits.
        process.send_signal(signal.SIGKILL)
        process.wait()
        late = image(sites[0].folder / "images", 7)
        sites[0].run("seal", late, "--device", "ct1")
        refused = sites[0].run("anchor", "--timeout", "5", expect=6)
        assert "out of reach" in refused.stderr
    with serving(there, port):
        assert sites[0].json("anchor")["sequenced"] == 1
        assert set(sites[0].verdicts("images").values()) == {"AUTHENTIC"}
