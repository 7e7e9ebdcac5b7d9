"""One zip with all that a later verifier needs beside the images: lists, evidence, trust file, checkpoints, reports, how to."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ledger.core import stateproof
from ledger.core.errors import FixInput, NeedPermission, TryLater
from ledger.core.evidence import Bundle
from ledger.core.trust import Trust
from ledger.wiring.bundles import SUFFIX, read_bundle

_DATE = (1980, 1, 1, 0, 0, 0)
"""Of every entry: the same contents make the same zip."""

HOW_TO = """How to verify the images of this pack
=====================================

You need the images themselves, this folder unpacked, and ScanSeal ({software} wrote this; any version that reads
"scanseal-bundle-1" and "scanseal-trust-1" does it). No network and no account is needed, and no date matters:

    scanseal verify IMAGES --bundle evidence --trust trust.toml --offline

checks each image against its record: who sealed it, between which two blocks, and what was done with it since. Exit code 0
means that all are AUTHENTIC or DERIVED.

    scanseal audit run --manifest manifest.jsonl --evidence evidence --images IMAGES --trust trust.toml --offline

reconciles the images with the signed list and says what is missing. The reports here are what that said when the pack was
made.

Check trust.toml before you believe it: compare its chain id, genesis hash, contract addresses and authorities with what the
site and an archive of the chain say. Everything else in this folder proves itself against it.

    manifest.jsonl      the signed list: a header, then one entry a line
    evidence/           the proofs: manifest.seal.json for the list, the others for its images
    trust.toml          what a verifier believes: chain, contracts, log, authorities, final blocks
    checkpoints/        the log's signed checkpoints (C2SP tlog-checkpoint), one a file, as the evidence has them
    report/             the audit's reports, where it was run

The formats are described, byte for byte, in FORMAT.md of ScanSeal's source.
"""


def pack(
    output: Path, manifest: Path, evidence: Path, trust: Trust, trust_text: str, reports: Sequence[Path], software: str
) -> dict[str, int]:
    """Writes the zip as a whole, or not at all. Raises FixInput where it could not be verified offline."""
    bundles = sorted(evidence.glob(f"*{SUFFIX}"))
    if not (evidence / f"manifest{SUFFIX}").is_file():
        raise FixInput(f"{evidence}: without manifest{SUFFIX}: `scanseal transmittal export` writes it")
    if output.exists():
        raise FixInput(f"{output} exists already: packs are not overwritten")
    checkpoints = _checked(bundles, trust)
    draft = output.with_name(output.name + ".new")
    try:
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
            _put(archive, "README.txt", HOW_TO.format(software=software).encode())
            _put(archive, "trust.toml", trust_text.encode())
            _put(archive, "manifest.jsonl", manifest)
            for name, note in sorted(checkpoints.items()):
                _put(archive, f"checkpoints/{name}.txt", note.encode())
            for path in bundles:
                _put(archive, f"evidence/{path.name}", path)
            for path in reports:
                _put(archive, f"report/{path.name}", path)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(output)
    except OSError as error:
        draft.unlink(missing_ok=True)
        kind = TryLater if error.errno == 28 else NeedPermission
        raise kind(f"{output}: cannot be written ({error.strerror})") from error
    return {"bundles": len(bundles), "checkpoints": len(checkpoints), "reports": len(reports), "bytes": output.stat().st_size}


def _checked(bundles: Sequence[Path], trust: Trust) -> dict[str, str]:
    """The checkpoints of all bundles by log size, after making sure that each proof can be checked offline."""
    known = {block.number: block.hash for block in trust.blocks}
    checkpoints: dict[str, str] = {}
    for path in bundles:
        bundle = read_bundle(path)
        for header in map(stateproof.parse_header, (state.header for state in bundle.states)):
            if known.get(header.number) != header.hash:
                raise FixInput(
                    f"block {header.number} of {path.name} is not in the trust file, so that the pack could not be verified "
                    f"offline: `scanseal trust update --bundle {path.parent}` first"
                )
        if any(entry.included is None for entry in bundle.entries):
            raise FixInput(f"{path.name} has records that are not final on chain: `scanseal anchor`, and export it again")
        checkpoints |= dict(_notes(bundle))
    return checkpoints


def _notes(bundle: Bundle) -> Iterator[tuple[str, str]]:
    for anchor in bundle.anchors:
        yield anchor.checkpoint.split("\n")[1], anchor.checkpoint


def _put(archive: zipfile.ZipFile, name: str, content: bytes | Path) -> None:
    info = zipfile.ZipInfo(name, _DATE)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    with archive.open(info, "w", force_zip64=True) as target:
        if isinstance(content, bytes):
            target.write(content)
            return
        with content.open("rb") as source:
            while part := source.read(1 << 20):
                target.write(part)
