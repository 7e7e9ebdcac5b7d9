"""Libraries that take long to load are not paid for by the commands that do not use them."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("ledger.cli.app", {"sqlalchemy", "eth_account", "pydicom", "fastapi", "jinja2"}),
        ("ledger.wiring.verification", {"eth_account", "fastapi", "jinja2"}),
        ("ledger.wiring.chain", {"eth_account"}),
        ("ledger.keys.signers", {"eth_account"}),
    ],
)
def test_what_is_not_used_is_not_loaded(module: str, unwanted: set[str]) -> None:
    program = f"import sys, {module}; print(sorted({unwanted!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
