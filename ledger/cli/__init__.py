"""The command `scanseal`: arguments, output, exit codes."""

from ledger.cli.app import main

__all__ = ["main"]
