"""Errors, named after what the caller does next: fix the input, ask for permission, try again later, stop.

An *outcome* (a verdict) is returned, never raised. Each outer surface maps these classes once; `exit_code` is the
command line's mapping (DESIGN: usage 2, ledger out of reach 6, unreadable 7, internal 70). A message carries the evidence
and what to try next, and never a value that could identify a patient.
"""

from __future__ import annotations


class ScanSealError(Exception):
    """Every error that this package raises on purpose."""

    exit_code = 70


class FixInput(ScanSealError):
    """The caller gave something that cannot work; the message says what to change."""

    exit_code = 2


class Unreadable(FixInput):
    """An image or a file that cannot be read strictly, so nothing can be said about it."""

    exit_code = 7


class Refused(FixInput):
    """A digest profile that refuses an image, with a reason; another profile may take it."""

    exit_code = 7


class EvidenceInvalid(FixInput):
    """Evidence that proves nothing: malformed, damaged or forged. `step` names the verification step of FORMAT.md."""

    exit_code = 7

    def __init__(self, message: str, step: str = "evidence") -> None:
        super().__init__(message)
        self.step = step


class NeedPermission(ScanSealError):
    """The operating system, a contract or a policy does not let this caller do it."""

    exit_code = 2


class TryLater(ScanSealError):
    """Something outside is down, locked or full: nothing is lost, and the same call may succeed later."""

    exit_code = 6


class LedgerUnavailable(TryLater):
    """The chain cannot be reached or did not answer."""


class LedgerDisagrees(TryLater):
    """The chain's answers contradict each other, the trust file or a proof: a lying or confused node, never a verdict."""


class Stop(ScanSealError):
    """An invariant is broken; going on could lose or falsify something."""
