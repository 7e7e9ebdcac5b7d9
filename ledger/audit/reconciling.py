"""Going through the images: each is verified once, and recognised as one that is listed or not. FORMAT.md §10."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from ledger.audit.workbook import IN_ORDER, PROVEN, SAME_INSTANCE, SAME_PIXELS, Book, Examined, Listed, Origin
from ledger.core import content
from ledger.core.errors import Stop
from ledger.core.verdict import Verdict

WEIGHT: Final = 1 << 30
"""Bytes of the images that are examined together, and lost together when a run is interrupted."""
BATCH: Final = 64
"""Images that are examined together where nobody says what one weighs."""

Image = TypeVar("Image")
Image_contra = TypeVar("Image_contra", contravariant=True)

Find = Callable[[Iterable[str], str], list[Listed]]
"""(an image's pixel digests, its SOPInstanceUID or "") -> the listed images that it may be, the likeliest first."""


@dataclass(frozen=True)
class Answer:
    """What is known of an image: its verdict, the listed images that it may be, as they were found, and the slot of its first
    record. `origin` is what the evidence proves, and is there for every image in order: a manifest's word for it could hide
    what was withheld. `is_read` is False where the file could not be read as an image."""

    verdict: Verdict
    listed: Sequence[Listed] = ()
    origin: Origin | None = None
    is_read: bool = True

    def __post_init__(self) -> None:
        if self.verdict.token in IN_ORDER and (self.origin is None or self.verdict.record_id is None):
            raise Stop("an image in order was answered without its record and the first one's slot")


class Examiner(Protocol[Image_contra]):
    """Who reads and verifies images."""

    def examine(self, images: Sequence[Image_contra], find: Find) -> Sequence[Answer]:
        """An answer for each, in their order: it asks `find` once for an image that can be read, and verifies it by the
        evidence of what was found. Unreadable images are verdicts, too: whatever it raises ends the run."""


class Reconciling(Generic[Image]):
    """Examines images into a workbook: a run goes on where an earlier one stopped, and ends at the same result."""

    def __init__(
        self, book: Book, examiner: Examiner[Image], weigh: Callable[[Image], int] = lambda _: WEIGHT // BATCH
    ) -> None:
        self._book, self._examiner, self._weigh = book, examiner, weigh
        self._finders = [content.Finder(key) for key in book.find_keys()]

    def examine(self, images: Iterable[tuple[str, str, Image]], progress: Callable[[int], None]) -> None:
        """Examines each (path, stamp, image) that the workbook does not have with that stamp (size and time of change, say: a
        file of another stamp is examined anew); `progress` takes how many are done. To be called with all images that are
        there: what an earlier run saw elsewhere is forgotten at the end."""
        done = 0
        for chunk in self._batches(images):
            wanted = self._book.unseen([(path, stamp) for path, stamp, _ in chunk])
            todo = {path: (stamp, image) for path, stamp, image in chunk if path in wanted}
            if todo:
                answers = self._examiner.examine([image for _, image in todo.values()], self._find)
                pairs = zip(todo.items(), answers, strict=True)
                self._book.put([self._examined(path, stamp, answer) for (path, (stamp, _)), answer in pairs])
            done += len(chunk)
            progress(done)
        self._book.settle()

    def _batches(self, images: Iterable[tuple[str, str, Image]]) -> Iterator[list[tuple[str, str, Image]]]:
        batch: list[tuple[str, str, Image]] = []
        weight = 0
        for one in images:
            batch.append(one)
            weight += self._weigh(one[2])
            if weight >= WEIGHT:
                yield batch
                batch, weight = [], 0
        if batch:
            yield batch

    def _find(self, digests: Iterable[str], instance: str) -> list[Listed]:
        values = tuple(digests)
        pixels = [finder.token(content.PIXELS, digest) for finder in self._finders for digest in values]
        instances = [finder.token("SOPInstanceUID", instance) for finder in self._finders] if instance else []
        return self._book.candidates(pixels, instances)

    def _examined(self, path: str, stamp: str, answer: Answer) -> Examined:
        found = self._recognised(answer)
        listed, how = (None, SAME_PIXELS) if found is None else (found[0].record, found[1])
        return Examined(path, stamp, answer.verdict, listed, how, answer.origin, answer.is_read)

    def _recognised(self, answer: Answer) -> tuple[Listed, int] | None:
        """Which listed image it is, and how sure that is.

        An image in order is the one whose record proves it; proven by a record that nobody lists it is still the one with its
        instance, or none. One that is not in order is the one with its instance, else with its pixels, of several the one whose
        record it was compared with.
        """
        record = answer.verdict.record_id
        candidates = sorted(answer.listed, key=lambda one: (not one.same_instance, one.record != record))
        by_record = next((one for one in candidates if one.record == record), None)
        if by_record is None and record is not None:
            by_record = self._book.with_record(record)
        first = next(iter(candidates), None)
        if answer.verdict.token in IN_ORDER and by_record is not None:
            return by_record, PROVEN
        if first is not None and first.same_instance:
            return first, SAME_INSTANCE
        if answer.verdict.token in IN_ORDER:
            return None
        likely = first or by_record
        return None if likely is None else (likely, SAME_PIXELS)
