"""Auditing a transmittal: the signed list, the evidence beside it and the images, reconciled into a workbook."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from ledger.audit.completeness import Scope, conclude, findings, rows
from ledger.audit.expected import ExpectedVisit
from ledger.audit.reconciling import BATCH, WEIGHT, Answer, Find, Reconciling
from ledger.audit.result import AuditResult, Finding, Row, Signature
from ledger.audit.workbook import Listed, Origin, Source
from ledger.core import certificates, stateproof
from ledger.core.errors import EvidenceInvalid, FixInput, LedgerDisagrees, LedgerUnavailable
from ledger.core.evidence import Bundle
from ledger.core.manifest import Digest, Header, Reader
from ledger.core.records import Approval, ManifestRecord
from ledger.core.search import Evidence, Subject
from ledger.core.standing import Standing, stand
from ledger.core.trust import Facts, Trust
from ledger.store.audit import Workbook
from ledger.wiring.bundles import SUFFIX, bundle_files, read_bundle
from ledger.wiring.images import Found
from ledger.wiring.keeping import RECORDS_KEPT, Kept, weight
from ledger.wiring.manifests import read_digest
from ledger.wiring.verification import Oracle, Verifier

SMALL = WEIGHT // 4096
"""Bytes that an image counts for at least: so many of the smallest are examined together that their evidence, where they don't
lie in the order of the list, is not read over and over."""


@dataclass(frozen=True)
class Lists:
    """What an audit reconciles: the audited manifest, other manifests that account for counters, and the expected visits."""

    manifest: Path
    others: tuple[Path, ...]
    expected: tuple[ExpectedVisit, ...]


@dataclass(frozen=True)
class _Signed:
    """A manifest that was signed: the slot of its record, how that stands, and the approvals of it, one a person."""

    digest: Digest
    slot: Origin
    standing: Standing
    approvals: tuple[Signature, ...]


class Audit:
    """One audit, from a trust file and lists, kept in a workbook."""

    def __init__(
        self, trust: Trust, lists: Lists, evidence: Path, book: Workbook, oracle: Oracle | None, software: str
    ) -> None:
        self._trust, self._lists, self._folder, self._book, self._oracle = trust, lists, evidence, book, oracle
        self._software = software
        self._names: dict[str, str] = _names_noted(book)
        self._bundles: Kept[Bundle] = Kept(RECORDS_KEPT)

    @property
    def expected_images(self) -> int:
        """How many images the list has, so that progress has an end."""
        return self._list[1].count

    @cached_property
    def _list(self) -> tuple[Header, Digest]:
        return read_digest(self._lists.manifest)

    def run(self, images: Iterable[Found], bundles: Sequence[Bundle], progress: Callable[[int], None]) -> AuditResult:
        """Examines what is not in the workbook yet, and concludes. Raises EvidenceInvalid where the list proves nothing."""
        header, digest = self._list
        own = self._signed(digest, self._lists.manifest, self._folder)
        scope = self._scope(header, own)
        others = {path: self._other(path) for path in self._lists.others}
        parts = (digest.content, *(one.digest.content for one in others.values()), self._trust.model_dump_json().encode())
        identity = hashlib.sha256(b"\0".join((*parts, repr(self._lists.expected).encode()))).hexdigest()
        is_loaded, started = self._book.begin(identity, int(time.time()))
        if not is_loaded:
            self._book.load(_sources({self._lists.manifest: own} | others))
        examiner = _Examiner(self._load)
        examiner.use(Verifier(self._trust, bundles, None, self._oracle, examiner, self._profiles()))
        reconciling = Reconciling(self._book, examiner, _weight)
        reconciling.examine(((found.path, _stamp(found), found) for found in images), progress)
        self._book.note("scope", json.dumps(_dumped(scope) | {"devices": self._names}))
        return conclude(self._book, scope, started, int(time.time()))

    def _other(self, path: Path) -> _Signed:
        """Another manifest that accounts for counters: it counts as the audited one does, or anybody could explain anything
        away with it. Raises EvidenceInvalid."""
        header, digest = read_digest(path)
        signed = self._signed(digest, path, path.parent / "evidence")
        needed = self._trust.policy.approvals if _lists_or_excuses(header, digest) else 0
        if not signed.standing.is_settled or len({one.name for one in signed.approvals}) < needed:
            raise EvidenceInvalid(
                f"{path}: not final on chain, or without the approvals that the policy asks for: leave it out"
            )
        return signed

    def _load(self, name: str) -> Bundle:
        return self._bundles.get(name, lambda: self._bundle(name), weight)

    def _bundle(self, name: str) -> Bundle:
        if "/" in name or "\\" in name or not name.endswith(SUFFIX):
            raise EvidenceInvalid(f"the list names evidence outside of its folder: {name!r}")
        bundle = read_bundle(self._folder / name)
        self._know(bundle)
        return bundle

    def _know(self, bundle: Bundle) -> None:
        for der in bundle.certificates:
            certificate = certificates.parse(der)
            self._names[certificate.key.hex()] = certificate.holder().name

    def _profiles(self) -> list[str]:
        """The digest profiles that the list's images were sealed with, as its first bundle has them."""
        first = next(iter(sorted(self._folder.glob(f"[0-9]*{SUFFIX}"))), None)
        if first is None:
            return []
        return sorted({seal.record.profile.partition("/")[0] for seal in self._load(first.name).seals})

    # ---- the list itself ----

    def _scope(self, header: Header, signed: _Signed) -> Scope:
        standing, signatures = signed.standing, signed.approvals
        needed = self._trust.policy.approvals
        names = {signature.name for signature in signatures}
        reason = ""
        if not standing.is_settled:
            reason = "the list's record is not final on chain yet"
        elif len(names) < needed:
            reason = f"the policy asks for the approval of {needed} persons, {len(names)} signed"
        return Scope(
            trial=header.trial,
            site=header.site,
            kind=header.kind,
            record_id="0x" + standing.record_id.hex(),
            digest="0x" + signed.digest.content.hex(),
            is_settled=not reason,
            open_reason=reason,
            expected=self._lists.expected,
            today=datetime.now(UTC).date(),
            signatures=signatures,
            approvals_required=needed,
            chain_id=self._trust.chain_id,
            anchor_log="0x" + self._trust.anchor_log.address.hex(),
            trust_as_of=standing.as_of,
            offline=self._oracle is None,
            software=self._software,
            device=_namer(self._names),
        )

    def _signed(self, digest: Digest, manifest: Path, folder: Path) -> _Signed:
        """A list's record as it stands, and the approvals of it. Raises EvidenceInvalid where nothing proves the list."""
        path = folder / f"manifest{SUFFIX}"
        if not path.is_file():
            raise EvidenceInvalid(
                f"{path}: the list's own evidence is missing: ask the sender for all that `transmittal export` wrote"
            )
        bundle = read_bundle(path)
        self._know(bundle)
        evidence = Evidence([bundle], self._trust, self._facts(bundle))
        for entry in bundle.entries:
            record = entry.record.value
            if isinstance(record, ManifestRecord) and digest.is_of(record):
                standing = stand(evidence, 0, entry)
                if standing.refused:
                    raise EvidenceInvalid(f"the list proves nothing: {standing.refused}")
                return _Signed(digest, Origin(record.key, record.counter), standing, tuple(_signatures(evidence, standing)))
        raise EvidenceInvalid(
            f"{manifest.name} is not the list that was signed: a line was changed, or the evidence is another's"
        )

    def _facts(self, bundle: Bundle) -> Facts:
        if self._oracle is None:
            return Facts()
        blocks = {stateproof.parse_header(state.header).number for state in bundle.states}
        blocks |= {entry.record.beacon_number for entry in bundle.entries}
        return self._oracle.facts(sorted(blocks), sorted({entry.record.key for entry in bundle.entries}), [])


def _signatures(evidence: Evidence, approved: Standing) -> Iterator[Signature]:
    """The approvals of a record that stand, one a person."""
    seen: set[str] = set()
    for entry in evidence.followers(0, approved.record_id):
        record = entry.record.value
        if not isinstance(record, Approval):
            continue
        try:
            standing = stand(evidence, 0, entry)
        except (EvidenceInvalid, LedgerUnavailable, LedgerDisagrees):
            continue
        if standing.refused or standing.clock or not standing.is_settled or record.name in seen:
            continue
        seen.add(record.name)
        yield Signature(record.name, record.meaning, record.claimed_time, standing.bracket, "0x" + standing.record_id.hex())


def _lists_or_excuses(header: Header, digest: Digest) -> bool:
    """All manifests but a heartbeat that only tells how far a device counted: nothing is explained by it."""
    return header.kind != "heartbeat" or digest.count > 0 or any(account.others for account in header.accounts)


def _sources(manifests: dict[Path, _Signed]) -> Iterator[Source]:
    for path, signed in manifests.items():
        with path.open("rb") as file:
            yield Source(path.name, Reader(file), signed.digest, signed.slot)


def _stamp(found: Found) -> str:
    """What tells one content of a file from another, without reading it."""
    try:
        status = Path(found.path.partition("!/")[0]).stat()
    except OSError:
        return "none"
    return f"{status.st_size}:{status.st_mtime_ns}"


def _weight(found: Found) -> int:
    """An image's bytes, as a batch counts them; of one in an archive they are not known before it is read."""
    path, _, inside = found.path.partition("!/")
    try:
        return WEIGHT // BATCH if inside else max(SMALL, Path(path).stat().st_size)
    except OSError:
        return SMALL


class _Examiner:
    """`ledger.audit.reconciling.Examiner` of files, by the verifier that everything else uses, and its `Finder`."""

    def __init__(self, load: Callable[[str], Bundle]) -> None:
        self._load = load
        self._listed: dict[str, list[Listed]] = {}

    def use(self, verifier: Verifier) -> None:
        self._verifier = verifier

    def examine(self, images: Sequence[Found], find: Find) -> Sequence[Answer]:
        self._find, self._listed = find, {}
        return [
            Answer(
                result.verdict,
                self._listed.get(result.path, ()),
                None if result.verdict.origin is None else Origin(*result.verdict.origin),
                result.subject is not None,
            )
            for result in self._verifier.verify(images, together=len(images))
        ]

    def named(self, path: str, subject: Subject) -> tuple[str, ...]:
        """The bundles that the list names for an image."""
        listed = self._find((str(digest) for digest in subject.digests.values()), subject.instance)
        self._listed[path] = listed
        return tuple(dict.fromkeys(one.evidence for one in listed if one.evidence))

    def load(self, name: str) -> Bundle:
        return self._load(name)


# ---- what a workbook keeps for its reports --------------------------------------------------------------------------------


def _names_noted(book: Workbook) -> dict[str, str]:
    """Key id (hex) -> whom its certificate names, as an earlier run noted it."""
    text = book.noted("scope")
    return dict(json.loads(text)["devices"]) if text else {}


def _dumped(scope: Scope) -> dict[str, Any]:
    values = asdict(replace(scope, device=_namer({}), expected=()))
    del values["device"]
    values["expected"] = [asdict(one) | {"due": one.due.isoformat() if one.due else None} for one in scope.expected]
    values["today"] = scope.today.isoformat()
    return values


def read_scope(book: Workbook) -> Scope:
    """The scope of the audit that a workbook is of. Raises FixInput for one that was not run to its end."""
    from datetime import date

    text = book.noted("scope")
    if text is None:
        raise FixInput("this audit has not been run to its end: `scanseal audit run` goes on where it stopped")
    values = json.loads(text)
    names = values.pop("devices")
    expected = tuple(
        ExpectedVisit(**(one | {"due": date.fromisoformat(one["due"]) if one["due"] else None}))
        for one in values.pop("expected")
    )
    signatures = tuple(Signature(**(one | {"between": tuple(one["between"])})) for one in values.pop("signatures"))
    today = date.fromisoformat(values.pop("today"))
    return Scope(**values, expected=expected, signatures=signatures, today=today, device=_namer(names))


def _namer(names: dict[str, str]) -> Callable[[bytes], str]:
    return lambda key: names.get(key.hex(), f"key 0x{key.hex()[:16]}...")


def concluded(book: Workbook) -> tuple[AuditResult, Iterator[Row], Iterator[Finding]]:
    """What a workbook shows: the result, every image, every finding."""
    scope = read_scope(book)
    started = book.started
    return conclude(book, scope, started, int(time.time())), rows(book), findings(book, scope)


def named_bundles(paths: Sequence[Path]) -> list[Bundle]:
    return [read_bundle(file) for path in paths for file in bundle_files(path)]
