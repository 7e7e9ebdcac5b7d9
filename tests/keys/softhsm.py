"""A real SoftHSM2 in a folder of its own: tokens as files, reached through its PKCS#11 module."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

PIN, OFFICER_PIN = "4711-user", "0815-officer"
PLACES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so")


@dataclass(frozen=True)
class SoftHsm:
    """SoftHSM2 with its tokens under `folder`. A process sees them once SOFTHSM2_CONF names `configuration`."""

    folder: Path
    module: Path

    @property
    def configuration(self) -> Path:
        return self.folder / "softhsm2.conf"

    @property
    def tokens(self) -> Path:
        return self.folder / "tokens"

    @property
    def env(self) -> dict[str, str]:
        return {"SOFTHSM2_CONF": str(self.configuration)}

    def new_token(self) -> str:
        """A new token's label: one that no other test has, since a process keeps tokens open by their labels."""
        label = f"token-{secrets.token_hex(4)}"
        self.util("--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", OFFICER_PIN)
        return label

    def util(self, *arguments: str) -> str:
        done = subprocess.run(
            ["softhsm2-util", *arguments], capture_output=True, text=True, check=True, env=os.environ | self.env
        )
        return done.stdout


def module() -> Path | None:
    """SoftHSM2's module, where it and its tool are installed."""
    places = [Path(place) for place in PLACES] + sorted(Path("/usr/lib").glob("*/softhsm/libsofthsm2.so"))
    found = next((place for place in places if place.is_file()), None)
    return found if shutil.which("softhsm2-util") else None


def softhsm(folder: Path) -> SoftHsm:
    """SoftHSM2 with no token yet. Where it is not installed: an error in CI, a named skip elsewhere."""
    found = module()
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("SoftHSM2 is missing: apt-get install softhsm2")
        pytest.skip("SoftHSM2 is missing: apt-get install softhsm2")
    made = SoftHsm(folder, found)
    made.tokens.mkdir(parents=True)
    made.configuration.write_text(f"directories.tokendir = {made.tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
    return made
