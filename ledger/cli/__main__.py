"""`python -m ledger.cli` is `scanseal`."""

from ledger.cli.app import main

main()
