"""What an audit keeps while it runs: the lists, and what was found of each image. FORMAT.md §10."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from ledger.audit.result import Row
from ledger.core.manifest import Account, Digest, Reader
from ledger.core.verdict import CustodyStep, Token, Verdict

MAIN: Final = 1
"""The number of the manifest that is audited."""

IN_ORDER: Final = (Token.AUTHENTIC, Token.DERIVED)

PROVEN, SAME_INSTANCE, SAME_PIXELS = 0, 1, 2
"""How an image was recognised as a listed one: it is in order and its record is the listed one; its instance is; its pixels
are, or its record is without being in order. The lower the surer."""


class Origin(NamedTuple):
    """A record's slot, an image's first one or a list's: key id (32 bytes) and counter."""

    key: bytes
    counter: int


@dataclass(frozen=True)
class Source:
    """A manifest to be taken in, the reader at its first entry. `digest` is what was verified of it: the file must still be
    that. `slot` is its own record's: one counter that is of no image."""

    name: str
    reader: Reader
    digest: Digest
    slot: Origin | None = None


@dataclass(frozen=True)
class Listed:
    """An image that a visit or transmittal lists; for one that was looked for by its tokens, which of them matched."""

    manifest: int
    line: int
    record: bytes
    subject: str
    visit: str
    status: str
    evidence: str | None
    origin: Origin
    same_instance: bool = False


@dataclass(frozen=True)
class Examined:
    """An image that was verified. `listed` is the record id of the listed image that it is, recognised by `how`; None for one
    that no manifest lists. `stamp` tells one content of the file from another; `origin` is the proven first record's slot.
    `is_read` is False where the file could not be read as an image."""

    path: str
    stamp: str
    verdict: Verdict
    listed: bytes | None
    how: int
    origin: Origin | None
    is_read: bool = True


@dataclass(frozen=True)
class Sighting:
    """An image that is there, as the workbook has it. `is_copy`: another file is the listed image, too, and recognised no less
    surely. `custody` are the steps that the replay found something wrong with."""

    row: Row
    listed: Listed | None
    how: int
    is_copy: bool
    origin: Origin | None
    custody: tuple[CustodyStep, ...]

    @property
    def is_in_order(self) -> bool:
        return self.row.verdict in IN_ORDER


class VisitCount(NamedTuple):
    """One visit of the audited manifest: entries of images, those withheld of them, those that are there, and in order."""

    subject: str
    visit: str
    listed: int
    withheld: int
    present: int
    in_order: int


class Span(NamedTuple):
    """An account as the workbook has it, without the counters that do not belong to the trial."""

    first: int
    last: int
    subject: str | None
    visit: str | None

    @classmethod
    def of(cls, account: Account, subject: str | None, visit: str | None) -> Span:
        return cls(account.first, account.last, account.subject or subject, account.visit or visit)


class Book(Protocol):
    """Keeps what was listed and what was found, on disk when a call returns, all of it or nothing. One process at a time.

    Iterators read page by page: whoever iterates may call anything that does not write.
    """

    def begin(self, identity: str, started: int) -> tuple[bool, int]:
        """Begins a run, the first or a later one: (whether the lists are loaded already, when the first began). `identity`
        stands for all that makes one audit another; FixInput for the workbook of another one."""

    def load(self, sources: Iterable[Source]) -> None:
        """Takes the manifests in, the audited one first; after a run that stopped in between all of them anew.

        Raises EvidenceInvalid naming the line for what is listed twice, and for a file that is not the verified one."""

    def find_keys(self) -> list[bytes]:
        """The find keys of the visits and transmittals, each once, the audited one's first."""

    def candidates(self, pixels: Sequence[bytes], instances: Sequence[bytes]) -> list[Listed]:
        """The listed images with one of these tokens, the surest first: both match, the instance, the pixels; a few of each."""

    def with_record(self, record: bytes) -> Listed | None:
        """The listed image with this record, the audited manifest's before another's."""

    def unseen(self, images: Sequence[tuple[str, str]]) -> set[str]:
        """Of these (path, stamp) the paths that are to be examined: new, or changed since. The others are noted as there."""

    def put(self, examined: Sequence[Examined]) -> None:
        """Notes what was found, in place of what was found before at these paths."""

    def settle(self) -> None:
        """All images were seen: forgets those that are gone since an earlier run, and says which are copies."""

    def counts(self) -> dict[tuple[str, int], int]:
        """(verdict, exit code) -> images."""

    def visits(self) -> Iterator[VisitCount]:
        """Every visit of the audited manifest, by subject and visit."""

    def other_visits(self) -> Iterator[tuple[str, str]]:
        """Every (subject, visit) that another visit's or transmittal's manifest lists."""

    def sightings(self) -> Iterator[Sighting]:
        """Every image that is there, by path."""

    def absent(self) -> Iterator[Row]:
        """Every image that the audited manifest lists and that is not there, in its order; withheld ones unless another
        manifest says that they were sent."""

    def made_only(self) -> Iterator[tuple[str, str, Origin]]:
        """(subject, visit, origin) of every image of a heartbeat whose origin no visit or transmittal has, by visit."""

    def accounts(self) -> Iterator[tuple[bytes, list[Span]]]:
        """(key, its accounts in all manifests by first counter), by key."""

    def counters(self, key: bytes) -> Iterator[int]:
        """The counters of a key that an image's origin or an account's `others` explains, ascending, each once. The origin of
        an image that is there and in order is the proven one, of others what their entry says."""

    def steps(self) -> list[tuple[CustodyStep, int, tuple[bytes, ...]]]:
        """Equal steps of custody as one: (step, how many images had it, record ids that stand for its parents)."""
