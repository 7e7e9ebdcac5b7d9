"""The command `scanseal`: arguments, output, exit codes."""
