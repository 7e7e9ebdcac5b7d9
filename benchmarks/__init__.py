"""How fast, how large and how expensive ScanSeal is, measured beside a floor in the same run. docs/performance.md has the
results.

    python -m benchmarks.seal_verify    seal and verify image files, beside reading and hashing them, dcmsign and
    c2pa-health-imaging
    python -m benchmarks.bundles        verify with ready digests, parse and size of evidence bundles
    python -m benchmarks.gas            gas of an anchor on a local chain
    python benchmarks/log.py            the log

Run from the repository's root. Each prints a table, or JSON with `--json`; `--help` has the sizes. Seeds are fixed, keys are
fresh.
"""
