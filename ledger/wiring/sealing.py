"""Sealing files: reads images, seals them in batches with one device's key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ledger.core.errors import NeedPermission, Refused, Unreadable
from ledger.core.records import AcquisitionRecord, Role, SyntheticRecord
from ledger.register import Receipt, Sealable, Sealer
from ledger.wiring.images import Found, sealable

if TYPE_CHECKING:
    from ledger.core.contracts import Beacon
    from ledger.store.journal import JournalStore

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


@dataclass(frozen=True)
class Signing:
    """One key of a site, ready to sign under a recent block, and the journal it signs into; `warning` is for the operator (a
    clock that is off, a chain that did not answer)."""

    sealer: Sealer
    journal: JournalStore
    beacon: Beacon
    beacon_time: int
    warning: str | None = None
    roles: Role | None = None
    """What the registry lets the key sign; None where that is not known now."""

    def require(self, needed: Role) -> None:
        """Raises NeedPermission where the key is enrolled and has none of these roles: its record would be REVOKED."""
        if self.roles is not None and not needed & self.roles:
            raise NeedPermission(
                f"this key may not {needed.words.replace(', ', ' or ')} (its roles are {self.roles.words}): "
                "sign with another key, or let the registrar enrol one with the role"
            )


class Sealing:
    """One device sealing under one beacon."""

    def __init__(self, signing: Signing) -> None:
        self._signing, self.warning = signing, signing.warning
        self._generator: str | None = None

    def seal(self, images: Iterable[Found], hash_name: str, generator: str | None = None) -> Iterator[Outcome]:
        """An outcome for each image, in order; each is yielded only when its seal is on disk. With a `generator` the images are
        declared synthetic."""
        self._generator = generator
        self._signing.require((AcquisitionRecord if generator is None else SyntheticRecord).ROLES)
        return self._outcomes(images, hash_name)

    def _outcomes(self, images: Iterable[Found], hash_name: str) -> Iterator[Outcome]:
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
        signing = self._signing
        receipts = iter(signing.sealer.seal(images, signing.beacon, signing.beacon_time, self._generator))
        for path, image in batch:
            if isinstance(image, Sealable):
                yield Outcome(path, next(receipts), image.digest.profile)
            else:
                yield image
