"""Sealing files: reads images, seals them in batches with one device's key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ledger.core.contracts import Beacon
from ledger.core.errors import NeedPermission, Refused, Unreadable
from ledger.register import Receipt, Sealable, Sealer
from ledger.wiring.images import Found, sealable

BATCH = 64
"""Images sealed with one durable write of the journal."""


@dataclass(frozen=True)
class Outcome:
    """One image's receipt, or why it has none."""

    path: str
    receipt: Receipt | None = None
    profile: str | None = None
    error: str | None = None
    has_pixels: bool = True
    """False for a report, a plan or another object without pixels: nothing to seal, and no failure."""


class Sealing:
    """One device sealing under one beacon; `warning` is for the operator (a clock that is off, a chain that did not answer)."""

    def __init__(self, sealer: Sealer, beacon: Beacon, beacon_time: int, warning: str | None) -> None:
        self._sealer, self._beacon, self._beacon_time, self.warning = sealer, beacon, beacon_time, warning

    def seal(self, images: Iterable[Found], hash_name: str) -> Iterator[Outcome]:
        """An outcome for each image, in order; each is yielded only when its seal is on disk."""
        batch: list[tuple[str, Sealable | Outcome]] = []
        for found in images:
            try:
                batch.append((found.path, sealable(found.read(), hash_name)))
            except Refused as error:
                batch.append((found.path, Outcome(found.path, error=str(error), has_pixels=False)))
            except (Unreadable, NeedPermission) as error:
                batch.append((found.path, Outcome(found.path, error=str(error))))
            if len(batch) == BATCH:
                yield from self._seal(batch)
                batch = []
        yield from self._seal(batch)

    def _seal(self, batch: list[tuple[str, Sealable | Outcome]]) -> Iterator[Outcome]:
        images = [image for _, image in batch if isinstance(image, Sealable)]
        receipts = iter(self._sealer.seal(images, self._beacon, self._beacon_time))
        for path, image in batch:
            if isinstance(image, Sealable):
                yield Outcome(path, next(receipts), image.digest.profile)
            else:
                yield image
