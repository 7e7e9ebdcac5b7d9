"""What the trial and audit commands need, built: visits, transmittals, audits, packs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledger.core.errors import FixInput
from ledger.wiring import site as sites
from ledger.wiring.assembly import opened, signing, software

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ledger.core.evidence import Bundle
    from ledger.wiring.auditing import Audit
    from ledger.wiring.images import Found
    from ledger.wiring.trial import Visits


def new_trial(site: Path | None, name: str, protocol: Path | None) -> dict[str, Any]:
    from ledger.wiring import trial

    made = trial.new_trial(sites.open_site(site), name, protocol)
    return {"trial": made.name, "folder": str(made.folder), "expected_visits": len(made.expected)}


@contextmanager
def visits(site: Path | None, name: str, device: str) -> Iterator[Visits]:
    """A key of a site that draws up a trial's visits."""
    from ledger.wiring.trial import Visits, read_trial

    here = sites.open_site(site)
    with signing(site, device) as ready:
        yield Visits(here, read_trial(here, name), ready)


def others_of(text: str | None) -> Callable[[str, list[int]], list[int]]:
    """Which open counters of a device do not belong to the trial: 'all', or `ct1:3,7-9;ct2:4`. Raises FixInput."""
    if text is None:
        return lambda *_: []
    if text == "all":
        return lambda _, counters: counters
    named: dict[str, set[int]] = {}
    try:
        for part in text.split(";"):
            device, _, numbers = part.strip().partition(":")
            for span in numbers.split(","):
                first, _, last = span.strip().partition("-")
                named.setdefault(device, set()).update(range(int(first), int(last or first) + 1))
    except ValueError as error:
        raise FixInput("--others is 'all', or counters of devices: ct1:3,7-9;ct2:4") from error
    return lambda device, counters: [one for one in counters if one in named.get(device, ())]


def heartbeat(
    site: Path | None,
    name: str,
    device: str,
    images: Iterable[Found],
    of: tuple[str | None, str | None],
    accounts: Sequence[str],
    others: str | None,
) -> dict[str, Any]:
    """A signed statement of what devices made since their last one (`scanseal trial heartbeat`)."""
    if (of[0] is None) != (of[1] is None):
        raise FixInput("name both a --subject and a --visit, or neither")
    with visits(site, name, device) as ready:
        if of[0] is None and any(True for _ in images):
            raise FixInput("images belong to a visit: name its --subject and --visit")
        drawn = ready.heartbeat(images, *of, devices=accounts, others=others_of(others))
    return {
        "folder": str(drawn.path.parent),
        "images": drawn.digest.count,
        "record_id": "0x" + drawn.receipt.record_id.hex(),
        "counters": drawn.unaccounted,
        "warning": ready.warning,
    }


def create_transmittal(site: Path | None, name: str, output: Path, chosen: Sequence[Path]) -> dict[str, Any]:
    from ledger.wiring import manifests
    from ledger.wiring.transmittal import create_transmittal
    from ledger.wiring.trial import read_trial

    here = sites.open_site(site)
    header, digest = create_transmittal(here, read_trial(here, name), chosen, output)
    return {"manifest": str(output / manifests.MANIFEST)} | manifests.described(header, digest)


def sign_transmittal(site: Path | None, folder: Path, device: str) -> dict[str, Any]:
    from ledger.wiring import manifests

    _, digest = manifests.read_digest(manifests.manifest_path(folder))
    with signing(site, device) as ready:
        receipt = manifests.sign_digest(ready, digest)
    return {
        "record_id": "0x" + receipt.record_id.hex(),
        "entries": digest.count,
        "new": receipt.is_new,
        "warning": ready.warning,
    }


def export_transmittal(site: Path | None, folder: Path, say: Callable[[int], None]) -> dict[str, int]:
    from ledger.wiring.transmittal import export_transmittal

    here = sites.open_site(site)
    with opened(here, read_only=True) as store:
        return export_transmittal(here, store.journal, store.exporter(), folder, say)


@contextmanager
def audit(
    site: Path | None,
    trust: Path | None,
    manifest: Path,
    evidence: Path | None,
    protocol: Path | None,
    also: Sequence[Path],
    workbook: Path,
    *,
    offline: bool,
) -> Iterator[Audit]:
    """An audit, ready to run, by a trust file (the site's where none is named)."""
    from ledger.store.audit import Workbook
    from ledger.wiring.auditing import Audit, Lists
    from ledger.wiring.manifests import manifest_path
    from ledger.wiring.trial import read_expected

    folder = sites.find(site) if trust is None else None
    if trust is None and folder is None:
        raise FixInput("no trust file: name one with --trust")
    believed = sites.read_trust(trust) if trust is not None else sites.read_site(folder or Path()).trust()
    oracle = None
    if not offline and believed.rpc:
        from ledger.wiring.chain import Asking

        oracle = Asking(believed)
    listed = manifest_path(manifest)
    lists = Lists(listed, tuple(map(manifest_path, also)), read_expected(protocol) if protocol else ())
    book = Workbook(workbook)
    try:
        yield Audit(believed, lists, evidence or listed.parent / "evidence", book, oracle, software())
    finally:
        book.close()


def report(workbook: Path, output: Path, lang: str, audience: str, formats: Sequence[str]) -> tuple[Path, ...]:
    """The files of a finished audit's report (`scanseal audit report`)."""
    from ledger.audit.report import FORMATS, write_report
    from ledger.store.audit import Workbook
    from ledger.wiring.auditing import concluded

    if not workbook.is_file():
        raise FixInput(f"{workbook}: no audit's workbook: `scanseal audit run` makes it")
    book = Workbook(workbook)
    try:
        result, rows, findings = concluded(book)
        return write_report(result, rows, findings, output, lang, audience, formats or FORMATS)
    finally:
        book.close()


def pack(
    site: Path | None, trust: Path | None, manifest: Path, evidence: Path | None, reports: Sequence[Path], output: Path
) -> dict[str, Any]:
    """One zip for a later verifier (`scanseal audit pack`)."""
    from ledger.wiring import packing
    from ledger.wiring.manifests import manifest_path

    path = trust if trust is not None else sites.open_site(site).trust_path
    believed = sites.read_trust(path)
    listed = manifest_path(manifest)
    files = [file for named in reports for file in (sorted(named.iterdir()) if named.is_dir() else [named])]
    for file in files:
        if not file.is_file():
            raise FixInput(f"{file}: no such report")
    folder = evidence or listed.parent / "evidence"
    text = path.read_text(encoding="utf-8")
    packed = packing.pack(output, listed, folder, believed, text, files, software())
    return {"pack": str(output)} | packed


def bundles(paths: Sequence[Path]) -> list[Bundle]:
    from ledger.wiring.auditing import named_bundles

    return named_bundles(paths)
