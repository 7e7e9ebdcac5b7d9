"""`python -m ledger.cli`, and what the installed `scanseal` starts: an interrupt is a sentence even while modules are
loading."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line."""
    try:
        from ledger.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("scanseal: interrupted: what was reported as done is kept, and the same command goes on from there\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
