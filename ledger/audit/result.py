"""What an audit found, as data: every report (HTML, PDF, CSV, JSON) is a view of this, and adds nothing to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from ledger.core.errors import FixInput


class SetToken(StrEnum):
    """The verdicts on a set of images, the first that holds (FORMAT.md §10). They are never translated."""

    WITHHELD = "WITHHELD"
    UNEXPECTED = "UNEXPECTED"
    INCOMPLETE = "INCOMPLETE"
    OPEN = "OPEN"
    COMPLETE = "COMPLETE"


SET_EXIT_CODES = {token: 0 if token is SetToken.COMPLETE else 5 for token in SetToken}

Kind = Literal[
    "withheld_declared",  # an entry says that the image exists and was not sent
    "withheld_counter",  # a device's counter that nobody accounts for
    "unexpected_image",  # present, and in no manifest
    "unexpected_visit",  # in a manifest, and not in the protocol's list
    "missing_image",  # listed as sent, and not there
    "duplicate_image",  # the same listed image is there twice
    "image_not_in_order",  # listed and there, with another verdict than AUTHENTIC or DERIVED
    "other_record",  # listed and there, but proven by another record than the listed one
    "not_checked",  # there, and unreadable or unprovable
    "visit_open",  # expected, and no manifest yet
    "manifest_open",  # the manifest's record or its approvals are not settled
    "custody",  # a finding of the replay of custody: gap, fork, role, time, content
]


@dataclass(frozen=True)
class Finding:
    """One exception, with its evidence. `detail` is the verifier's own English sentence, quoted in every language.

    `parameters` fill the sentence of the kind (`counter`, `device`, `count` ...); nothing here names a patient: `subject` is
    the trial's pseudonym.
    """

    kind: Kind
    subject: str | None = None
    visit: str | None = None
    path: str | None = None
    verdict: str | None = None
    record_id: str | None = None
    detail: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_restricted(self) -> bool:
        """Whether it may unblind a reader, so that only the roles that the trial names may see it."""
        return self.kind in ("withheld_declared", "withheld_counter")


RowStatus = Literal["listed", "other_record", "unexpected", "unreadable", "missing", "withheld"]


@dataclass(frozen=True)
class Row:
    """One image of the audit: one that is there (`path`), or one that is listed and is not (`path` None).

    `sealed_between` are two block times in seconds since 1970 (None: not proven).
    """

    path: str | None
    subject: str | None
    visit: str | None
    verdict: str | None
    status: RowStatus
    record_id: str | None
    device: str | None
    sealed_between: tuple[int | None, int | None]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class VisitResult:
    """One visit: what was listed (`withheld` images among it), what is there, what is in order, and the verdict.

    `blinded_token` is the verdict for who may not know that anything was withheld: the next that holds.
    """

    subject: str
    visit: str
    token: SetToken
    listed: int
    present: int
    in_order: int
    withheld: int
    is_expected: bool
    blinded_token: SetToken | None = None


@dataclass(frozen=True)
class Step:
    """One step of custody for the timeline. Times are seconds since 1970: `claimed` by the signer, `between` two blocks
    (None: not proven). `finding` is a word of FORMAT.md §10 (gap, fork, role, time, content) or None."""

    action: str
    by: str
    role: str
    claimed: int
    between: tuple[int | None, int | None]
    record_id: str
    parents: tuple[str, ...] = ()
    count: int = 1
    finding: str | None = None
    detail: str = ""


@dataclass(frozen=True)
class Signature:
    """An electronic signature on what was audited: printed name, meaning, claimed time (seconds), the block times around it."""

    name: str
    meaning: str
    time: int
    between: tuple[int | None, int | None]
    record_id: str


@dataclass(frozen=True)
class Blinded:
    """What an audit comes to for who may not know that anything was withheld: as if no restricted finding had been made."""

    token: SetToken
    exit_code: int
    findings_total: int


@dataclass(frozen=True)
class AuditResult:
    """A whole audit. `images` maps a custody verdict to a count; `timeline` has equal steps of many images as one (`count`).

    `findings_total` may be larger than `findings`, of which at most 1,000 are kept in memory; CSV and JSON list all.
    `trust_as_of` is the time of the newest block that the trust file or the chain vouches for.
    """

    trial: str
    site: str
    manifest_kind: str
    manifest_record: str
    manifest_digest: str
    token: SetToken
    exit_code: int
    listed: int
    present: int
    images: Mapping[str, int]
    visits: tuple[VisitResult, ...]
    findings: tuple[Finding, ...]
    findings_total: int
    timeline: tuple[Step, ...]
    signatures: tuple[Signature, ...]
    approvals_required: int
    chain_id: int
    anchor_log: str
    trust_as_of: int | None
    offline: bool
    started: int
    finished: int
    software: str
    blinded: Blinded | None = None


def blinded(result: AuditResult) -> AuditResult:
    """The result for who may not know that anything was withheld: nothing in it differs from an audit in which nothing was.

    Raises FixInput for a result that does not say what it comes to then.
    """
    known = result.blinded
    if known is None or any(visit.blinded_token is None for visit in result.visits):
        raise FixInput("this audit does not say what it shows to a blinded reader: run it again with this version")
    return replace(
        result,
        token=known.token,
        exit_code=known.exit_code,
        listed=result.listed - sum(visit.withheld for visit in result.visits),
        visits=tuple(_blinded_visit(visit) for visit in result.visits),
        findings=tuple(finding for finding in result.findings if not finding.is_restricted),
        findings_total=known.findings_total,
    )


def _blinded_visit(visit: VisitResult) -> VisitResult:
    listed = visit.listed - visit.withheld
    return replace(
        visit,
        token=visit.blinded_token or visit.token,
        listed=listed,
        present=min(visit.present, listed),
        in_order=min(visit.in_order, listed),
        withheld=0,
    )
