"""ScanSeal: a provenance ledger for medical imaging. The command is `scanseal`; FORMAT.md is the normative text."""
