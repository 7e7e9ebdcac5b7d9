"""A real site on a real local chain, driven through the command line as a user drives it."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from tests.journeys import warm

SCANSEAL = [sys.executable, "-m", "ledger.cli"]
MADE = ("CT_small.dcm", "MR_small.dcm", "examples_jpeg2k.dcm", "JPEG-lossy.dcm", "liver_1frame.dcm", "examples_palette.dcm")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Site:
    folder: Path
    port: int

    def run(
        self, *arguments: object, expect: int | None = 0, given: str = "", env: dict | None = None
    ) -> subprocess.CompletedProcess:
        """One `scanseal` command in this site; the exit code must be as expected."""
        environment = os.environ | {"SCANSEAL_SITE": str(self.folder), "COLUMNS": "200"} | (env or {})
        done = warm.run([str(one) for one in arguments], self.folder, environment, given, 120)
        assert "Traceback" not in done.stderr, done.stderr
        if expect is not None:
            assert done.returncode == expect, (done.returncode, done.stdout, done.stderr)
        return done

    def json(self, *arguments: object, expect: int | None = 0, **more: object) -> dict:
        return json.loads(self.run(*arguments, "--json", expect=expect, **more).stdout)

    def verdicts(self, *arguments: object, expect: int | None = 0) -> dict[str, str]:
        """Image name -> verdict."""
        images = self.json("verify", *arguments, expect=expect)["images"]
        return {Path(image["path"]).name: image["verdict"] for image in images}


def copy_test_file(name: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(str(get_testdata_file(name, download=False)), folder / name))


def make_site(folder: Path) -> Site:
    site = Site(folder, free_port())
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [
            *SCANSEAL,
            "init",
            str(folder),
            "--name",
            "Test Hospital",
            "--rpc",
            f"http://127.0.0.1:{site.port}",
            "--keep-passphrase",
        ],
        check=True,
        capture_output=True,
    )
    site.run("devnet", "up")
    site.run("deploy")
    return site


def add_device(site: Site, name: str, curve: str, serial: str, *more: str) -> None:
    site.run(
        "device",
        "request",
        name,
        "--manufacturer",
        "Acme",
        "--model",
        "CT 3000",
        "--serial",
        serial,
        "--ae",
        name,
        "--curve",
        curve,
    )
    site.run("device", "approve", name, *more)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with two devices, six sealed images, and everything final on chain. Tests do not change what is sealed here."""
    made = make_site(tmp_path_factory.mktemp("hospital"))
    try:
        add_device(made, "ct1", "secp256k1", "4711", "--seals-everything-since", "2024-01-01")
        add_device(made, "xr1", "p256", "0815")
        for name in MADE:
            copy_test_file(name, made.folder / "made")
        made.run("seal", *(f"made/{name}" for name in MADE[:3]), "--device", "ct1")
        made.run("seal", *(f"made/{name}" for name in MADE[3:]), "--device", "xr1")
        made.run("anchor")
        yield made
    finally:
        made.run("devnet", "down", expect=None)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site with one device whose devnet is down, to be copied."""
    made = make_site(tmp_path_factory.mktemp("prepared") / "hospital")
    add_device(made, "ct1", "secp256k1", "4711")
    made.run("devnet", "down")
    return made


@pytest.fixture
def own_site(tmp_path: Path, prepared: Site) -> Iterator[Site]:
    """A site with one device, for tests that change it: a copy, with a chain of its own that went the same way so far."""
    made = Site(tmp_path / "hospital", free_port())
    shutil.copytree(prepared.folder, made.folder)
    for path in (made.folder / "site.toml", made.folder / "trust.toml", made.folder / "devnet" / "devnet.json"):
        text = path.read_text().replace(f":{prepared.port}", f":{made.port}")
        path.write_text(text.replace(str(prepared.folder), str(made.folder)))
    try:
        made.run("devnet", "up")
        yield made
    finally:
        made.run("devnet", "down", expect=None)
