"""The answer: exactly one custody verdict for an image, its exit code, and the five axes behind it. DESIGN §7, FORMAT.md §9."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from ledger.core.pixels import ChangedTile


class Token(StrEnum):
    """The custody verdicts. They are never translated."""

    AUTHENTIC = "AUTHENTIC"
    DERIVED = "DERIVED"
    DECLARED_SYNTHETIC = "DECLARED_SYNTHETIC"
    PENDING = "PENDING"
    ALTERED = "ALTERED"
    MISMATCH = "MISMATCH"
    REVOKED = "REVOKED"
    STRIPPED = "STRIPPED"
    UNREGISTERED = "UNREGISTERED"
    NOT_CHECKED = "NOT_CHECKED"


EXIT_CODES = {
    Token.AUTHENTIC: 0,
    Token.DERIVED: 0,
    Token.DECLARED_SYNTHETIC: 9,
    Token.PENDING: 4,
    Token.ALTERED: 1,
    Token.MISMATCH: 1,
    Token.REVOKED: 1,
    Token.STRIPPED: 1,
    Token.UNREGISTERED: 3,
    Token.NOT_CHECKED: 7,
}
OUT_OF_REACH = 6
SEVERITY = (1, 5, 8, 9, 6, 7, 3, 4, 0)
"""Exit codes, the worst first: of many files the worst one decides."""

Axis = Literal["integrity", "identity", "time", "completeness", "patient"]
AXES: tuple[Axis, ...] = ("integrity", "identity", "time", "completeness", "patient")
Status = Literal["ok", "failed", "not_checked"]


@dataclass(frozen=True)
class Check:
    """One axis: `not_checked` means that nothing could be said, and is neither good nor bad."""

    status: Status
    detail: str


NOT_CHECKED = Check("not_checked", "not checked")


FindingWord = Literal["gap", "fork", "role", "time", "content"]
"""What the replay of custody may find at a step (FORMAT.md §10)."""


@dataclass(frozen=True)
class CustodyStep:
    """One record of an image's history, for people and reports: what was done, by whom, when.

    `claimed_time` is the signer's clock, `between` two block times (None: not proven), `changed` the items that a receipt
    names, `statement` all that it says (JSON), `meaning` an approval's. `finding` says what is wrong with the step, `detail` in
    a sentence; `by` and `record_id` are None where the record does not stand.
    """

    action: str
    operation: str
    by: str | None
    claimed_time: int
    between: tuple[int | None, int | None]
    record_id: bytes | None
    parents: tuple[bytes, ...] = ()
    changed: tuple[str, ...] = ()
    statement: str | None = None
    meaning: str | None = None
    finding: FindingWord | None = None
    detail: str = ""


@dataclass(frozen=True)
class Verdict:
    """What is known about one image's custody.

    `sealed_between` are two block times (seconds since 1970): the image was sealed after the first and before the second;
    None where
    a side is not proven. `record_id` is the record that was compared, if any. `differing` names attributes that are not what
    was sealed. `custody` is the image's history, its first record first; `generator` names what made a declared synthetic
    image. `as_of` is set where nobody was asked: the time of the oldest state that the keys were proven in; of what happened to
    them later only the trust file can tell. `origin` is the slot (key id, counter) of the image's first record, as its evidence
    proves it.
    """

    token: Token
    reasons: tuple[str, ...] = ()
    exit_code: int = -1
    device: str | None = None
    sealed_between: tuple[int | None, int | None] = (None, None)
    checks: dict[Axis, Check] = field(default_factory=dict)
    record_id: bytes | None = None
    differing: tuple[str, ...] = ()
    regions: tuple[ChangedTile, ...] = ()
    block: int | None = None
    custody: tuple[CustodyStep, ...] = ()
    generator: str | None = None
    as_of: int | None = None
    origin: tuple[bytes, int] | None = None

    def __post_init__(self) -> None:
        if self.exit_code < 0:
            object.__setattr__(self, "exit_code", EXIT_CODES[self.token])
        object.__setattr__(self, "checks", {axis: self.checks.get(axis, NOT_CHECKED) for axis in AXES})


def worst(verdicts: Iterable[Verdict]) -> Verdict | None:
    """The verdict that decides over many files, the first of equals; None when there is none."""
    return min(verdicts, key=lambda verdict: SEVERITY.index(verdict.exit_code), default=None)
