"""The commands together, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from ledger.cli import (
    admin,
    agent,
    anchoring,
    audit,
    backup,
    custody,
    detect,
    evidence,
    fingerprint,
    node,
    sealing,
    trial,
    verifying,
)
from ledger.cli.output import ERR, OUT, plain
from ledger.core.errors import ScanSealError

INTERRUPTED = 130
PIPE_CLOSED = 141
INTERNAL = 70
USAGE = 2

app = typer.Typer(
    name="scanseal",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for commands in (
    admin,
    sealing,
    anchoring,
    verifying,
    detect,
    fingerprint,
    custody,
    trial,
    audit,
    evidence,
    agent,
    node,
    backup,
):
    commands.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        OUT.print(f"scanseal {version('scanseal')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """A provenance ledger for medical imaging: seal images at the device, anchor the seals on a chain, verify anywhere."""


def main() -> None:
    """Runs the command; every error on purpose is one line on standard error and its own exit code."""
    # pydicom imports `requests` where it is there, and that binds a socket when it is imported: offline means none at all.
    sys.modules.setdefault("requests", None)  # type: ignore[arg-type]
    try:
        app()
    except ScanSealError as error:
        _fail(str(error), error.exit_code)
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED:
            raise KeyboardInterrupt from leaving
        if isinstance(leaving.__context__, BrokenPipeError):
            sys.exit(PIPE_CLOSED)
        raise
    except OSError as error:
        _fail(f"{error.strerror or error} ({error.filename})" if error.filename else str(error.strerror or error), USAGE)
    except Exception as error:
        if os.environ.get("SCANSEAL_TRACEBACK"):
            raise
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        place = f"{os.path.basename(where.tb_frame.f_code.co_filename)}:{where.tb_lineno}" if where else "?"  # noqa: PTH119
        _fail(
            f"internal error ({type(error).__name__} at {place}): please report it; SCANSEAL_TRACEBACK=1 shows more", INTERNAL
        )


def _fail(message: str, code: int) -> None:
    ERR.print("[bold red]scanseal:[/bold red] ", end="")
    ERR.print(plain(message))
    sys.exit(code)
