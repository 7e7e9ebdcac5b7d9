"""The two databases that the same tests run against: a SQLite file, and a throw-away PostgreSQL cluster."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

_numbers = count()


def _postgres_bin() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else found[-1].parent if found else None


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The folder of a running cluster's socket. Without PostgreSQL: an error in CI, a named skip elsewhere."""
    programs = _postgres_bin()
    if programs is None:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is not installed")
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="scanseal-pg-"))
    # PostgreSQL refuses to run as root.
    account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
    if account:
        os.chown(folder, account.pw_uid, account.pw_gid)

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [programs / program, "-D", folder / "data", *arguments],
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    run("initdb", "-A", "trust", "-U", "scanseal", "-E", "UTF8", "--locale=C", "--no-sync")
    run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", f"-c listen_addresses= -k {folder}", "start")
    try:
        yield str(folder)
    finally:
        run("pg_ctl", "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database, as `open_store` takes it."""
    if request.param == "sqlite":
        return str(tmp_path / "store.db")
    import psycopg

    folder = request.getfixturevalue("postgresql")
    name = f"test{next(_numbers)}"
    with psycopg.connect(host=folder, user="scanseal", dbname="postgres", autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
    return f"postgresql+psycopg://scanseal@/{name}?host={folder}"
