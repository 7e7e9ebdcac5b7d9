"""The custody of images as a verifier sees it: the steps, what is wrong with them, and what a receipt declares, recomputed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledger.core.custody import Statement
from ledger.core.errors import FixInput
from ledger.core.verdict import SEVERITY, CustodyStep, Token, Verdict
from ledger.dicom import read
from ledger.wiring.custody import recomputed
from ledger.wiring.images import Found
from ledger.wiring.verification import Verifier

IN_ORDER = (Token.AUTHENTIC, Token.DERIVED, Token.DECLARED_SYNTHETIC)
INCOMPLETE = 5


@dataclass(frozen=True)
class Trail:
    """One image's custody: `token` is COMPLETE without a finding, INCOMPLETE with one, and the image's own verdict where that
    is not in order."""

    path: str
    verdict: Verdict
    steps: tuple[CustodyStep, ...]
    recomputed: dict[str, Any] | None

    @property
    def token(self) -> str:
        if self.verdict.token not in IN_ORDER:
            return str(self.verdict.token)
        return "INCOMPLETE" if self.has_finding else "COMPLETE"

    @property
    def has_finding(self) -> bool:
        return any(step.finding for step in self.steps) or (self.recomputed is not None and not self.recomputed["holds"])

    @property
    def exit_code(self) -> int:
        if self.verdict.token not in IN_ORDER:
            return self.verdict.exit_code
        return INCOMPLETE if self.has_finding else 0


def trails(verifier: Verifier, images: Iterable[Found], parent: Path | None) -> Iterator[Trail]:
    """The trail of each image. With a `parent` image, what the receipt of each declares of it is recomputed."""
    named = list(images)
    for found, result in zip(named, verifier.verify(named), strict=True):
        again = None
        if parent is not None and result.verdict.token in IN_ORDER:
            again = _recomputed(verifier, parent, found, result.verdict)
        yield Trail(result.path, result.verdict, result.verdict.custody, again)


def exit_code(found: Iterable[Trail]) -> int:
    return min((one.exit_code for one in found), key=SEVERITY.index)


def _recomputed(verifier: Verifier, parent: Path, child: Found, verdict: Verdict) -> dict[str, Any]:
    """Raises FixInput where `parent` is not the image that the child was made from."""
    made_from = Found(str(parent), lambda: read(parent))
    of_parent = next(iter(verifier.verify([made_from]))).verdict
    names = {step.record_id for step in verdict.custody if step.record_id}
    if of_parent.token not in IN_ORDER or of_parent.record_id not in names:
        raise FixInput(f"{parent}: not the sealed image that this one was made from ({of_parent.token})")
    own = next((step for step in verdict.custody if step.record_id == verdict.record_id and step.statement), None)
    if own is None or own.statement is None:
        raise FixInput(f"{child.path}: not a derived image, there is nothing to recompute")
    return recomputed(made_from.read(), child.read(), Statement(own.action, json.loads(own.statement)))
