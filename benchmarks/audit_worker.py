"""Runs one `scanseal` command in this process, and then says on standard error, in a line of JSON, what it took.

python -m benchmarks.audit_worker audit run ...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ledger.cli.app import main


def peak_memory() -> int:
    """Bytes that were resident at most in this process; getrusage would answer for the process that started it, too."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


if __name__ == "__main__":
    try:
        main()
    finally:
        print(json.dumps({"peak_memory": peak_memory()}), file=sys.stderr, flush=True)
