"""Custody of images: steps, derivations, approvals, signed into a site's journal; and what a trail says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ledger.core.attributes import GROUPS
from ledger.core.custody import SAME_CONTENT, Statement
from ledger.core.deidentification import Option
from ledger.core.errors import FixInput, NeedPermission, Refused, Unreadable
from ledger.core.records import CUSTODY_ROLES, Approval, CustodyRecord, GatewayRecord
from ledger.dicom import Image
from ledger.dicom.compare import errors, surviving_tiles
from ledger.register import Claim, Receipt, Sealable, changed_items
from ledger.store.records import RecordReader, StoredRecord
from ledger.wiring.images import Found, sealable
from ledger.wiring.sealing import BATCH, Outcome, Signing

APPROVAL_PROFILE = "approval-1"


@dataclass(frozen=True)
class Held:
    """An image at hand and the newest record of its custody here."""

    image: Sealable
    record: StoredRecord


class Holdings:
    """Finds the records of images in a site's store."""

    def __init__(self, records: RecordReader) -> None:
        self._records = records
        self._hashes = {profile.partition("-")[2] for profile in records.profiles()} or {"sha256"}

    def held(self, image: Image) -> Held:
        """Exactly this image with the newest record of its trail. Raises FixInput where there is none here."""
        read, stored = self.sealed(image)
        return Held(read, self._newest(stored))

    def sealed(self, image: Image) -> tuple[Sealable, StoredRecord]:
        """Exactly this image, as its record's hash reads it, and the record that commits to it: the newest that says where it
        comes from, else a gateway's. Raises FixInput."""
        nearest: tuple[str, ...] | None = None
        of_unknown_origin: tuple[Sealable, StoredRecord] | None = None
        for hash_name in sorted(self._hashes):
            read = sealable(image, hash_name)
            for stored in reversed(self._records.find([str(read.digest)], read.instance)):
                if stored.image_key is None:
                    continue
                differing = changed_items(read, self._records.opening(stored))
                if not differing and not isinstance(stored.signed.record, GatewayRecord):
                    return read, stored
                if not differing:
                    of_unknown_origin = of_unknown_origin or (read, stored)
                nearest = differing if nearest is None or len(differing) < len(nearest) else nearest
        if of_unknown_origin is not None:
            return of_unknown_origin
        if nearest is None:
            raise FixInput("not sealed here: `scanseal seal` at the device that made it, first")
        raise FixInput(f"it is not what was sealed here, {', '.join(nearest)} differ: `scanseal verify` says more")

    def _newest(self, stored: StoredRecord) -> StoredRecord:
        """The end of the trail of steps that leave the image as it is."""
        while True:
            steps = [one for one in self._records.following([stored.record_id]) if _is_same_image(one, stored)]
            if not steps:
                return stored
            stored = max(steps, key=lambda one: one.number)


def _is_same_image(step: StoredRecord, before: StoredRecord) -> bool:
    record = step.signed.record
    return isinstance(record, CustodyRecord) and step.leaves is None and record.content == before.signed.record.content


class Custody:
    """One key of a site signing what happens to images."""

    def __init__(self, signing: Signing) -> None:
        self._signing, self.warning = signing, signing.warning
        self._holdings = Holdings(signing.journal)

    def add(self, images: Iterable[Found], statement: Statement) -> Iterator[Outcome]:
        """Signs a step that leaves each image as it is; an outcome for each, yielded when it is on disk."""
        if statement.action not in SAME_CONTENT:
            raise FixInput(f"{statement.action} makes another image: use `scanseal derive`")
        self._signing.require(CUSTODY_ROLES[statement.action])
        return self._steps(images, statement)

    def hold(self, images: Iterable[Found]) -> Iterator[Outcome]:
        """Signs that this key holds images of which no record is here: since when they are what they are, and no origin."""
        self._signing.require(GatewayRecord.ROLES)
        for found in images:
            try:
                image = found.read()
                read = sealable(image, "sha256")
                self._refuse_known(image)
            except Refused as error:
                yield Outcome(found.path, error=str(error), has_pixels=False)
            except (Unreadable, FixInput) as error:
                yield Outcome(found.path, error=str(error))
            else:
                signing = self._signing
                receipts = signing.sealer.receive([read], signing.beacon, signing.beacon_time)
                yield Outcome(found.path, receipts[0], read.digest.profile)

    def _refuse_known(self, image: Image) -> None:
        """Raises FixInput where a record of the image is here that this key did not sign as a holder of unknown origin."""
        try:
            record = self._holdings.held(image).record.signed.record
        except FixInput:
            return
        if not isinstance(record, GatewayRecord) or record.key != self._signing.sealer.key:
            raise FixInput("a record of it is here already: sign `received` or `stored`, which follows that one")

    def _steps(self, images: Iterable[Found], statement: Statement) -> Iterator[Outcome]:
        batch: list[tuple[str, Held | Outcome]] = []
        for found in images:
            try:
                held = self._holdings.held(found.read())
                self._check_step(held.record, statement)
                batch.append((found.path, held))
            except Refused as error:
                batch.append((found.path, Outcome(found.path, error=str(error), has_pixels=False)))
            except (Unreadable, FixInput, NeedPermission) as error:
                batch.append((found.path, Outcome(found.path, error=str(error))))
            if len(batch) == BATCH:
                yield from self._add(batch, statement)
                batch = []
        yield from self._add(batch, statement)

    def _check_step(self, record: StoredRecord, statement: Statement) -> None:
        """Refuses at once what a replay of the trail would find."""
        before = record.signed.record
        if statement.action == "received":
            if not isinstance(before, CustodyRecord) or before.action != "transferred":
                raise FixInput(
                    "nobody transferred it: the holder before signs `custody add --action transferred --to KEY` first"
                )
            if Statement.of(before).recipient != self._signing.sealer.key:
                raise FixInput("it was transferred to another holder's key than the one that signs here")
        elif isinstance(before, CustodyRecord) and before.action == "transferred" and before.key != self._signing.sealer.key:
            raise FixInput("it is on its way to another holder: who receives it signs `custody add --action received` first")

    def _add(self, batch: Sequence[tuple[str, Held | Outcome]], statement: Statement) -> Iterator[Outcome]:
        receipts = iter(self._signed([one for _, one in batch if isinstance(one, Held)], statement))
        for path, outcome in batch:
            if isinstance(outcome, Held):
                yield Outcome(path, next(receipts), outcome.image.digest.profile)
            else:
                yield outcome

    def _signed(self, held: Sequence[Held], statement: Statement) -> list[Receipt]:
        signing = self._signing
        claims = []
        for one in held:
            record = one.record.signed.record
            own = {"parents": (one.record.record_id,), "action": statement.action, "statement": statement.text()}
            claims.append(Claim(record.content, record.profile, own, one.record.generator))
        return signing.sealer.state(CustodyRecord, claims, signing.beacon, signing.beacon_time)

    def derive(self, parents: Sequence[Image], child: Image, make: Derivation) -> tuple[Receipt, Statement]:
        """Signs how `child` was made. Raises FixInput where the receipt would be false, naming the attributes."""
        signing = self._signing
        signing.require(CUSTODY_ROLES["derived"])
        held = [self._holdings.held(parent) for parent in parents]
        openings = [signing.journal.opening(one.record) for one in held]
        hash_name = openings[0].profile.partition("/")[0].partition("-")[2]
        read = sealable(child, hash_name)
        changed = changed_items(read, openings[0])
        statement = make.statement(changed, parents[0], child)
        if statement.action in SAME_CONTENT:
            if changed:
                raise FixInput(f"a lossless transcoding changes nothing, and {', '.join(changed)} differ: no receipt is signed")
            return next(iter(self._signed([held[0]], statement))), statement
        for parent, opening in zip(held[1:], openings[1:], strict=True):
            _refuse_another_patient(read, parent.image, opening.generator)
        return signing.sealer.derive(read, openings, statement, signing.beacon, signing.beacon_time), statement

    def approve(self, name: str, meaning: str, target: bytes) -> Receipt:
        """A person's electronic signature on a record."""
        signing = self._signing
        signing.require(Approval.ROLES)
        own = {"name": name, "meaning": meaning}
        claims = [Claim(target, APPROVAL_PROFILE, own)]
        return signing.sealer.state(Approval, claims, signing.beacon, signing.beacon_time)[0]

    def newest(self, image: Image) -> bytes:
        """The record id of the newest step of an image's custody here."""
        return self._holdings.held(image).record.record_id


def _refuse_another_patient(child: Sealable, parent: Sealable, generator: str | None) -> None:
    differing = [name for name in GROUPS["patient"] if child.attributes.get(name) != parent.attributes.get(name)]
    if differing and generator is None:
        raise FixInput(f"the parents are not all of the child's patient: {', '.join(differing)} differ")


@dataclass(frozen=True)
class Derivation:
    """How a child was made: an action or operation of FORMAT.md §3.1 with what a person adds to it."""

    operation: str
    options: frozenset[Option] = frozenset()
    x: int = 0
    y: int = 0
    reason: str | None = None
    tool: str | None = None

    def statement(self, changed: Sequence[str], parent: Image, child: Image) -> Statement:
        """The statement of this child. Raises FixInput."""
        members: dict[str, Any] = {"changed": list(changed)}
        if self.tool:
            members["tool"] = self.tool
        if self.operation == "transcoded":
            return Statement("transcoded", {"transfer_syntax": child.transfer_syntax} | _without_changed(members))
        if self.operation == "de-identified":
            options = sorted(str(option) for option in self.options)
            return Statement("de-identified", members | {"profile": "ps3.15-basic", "options": options})
        members["operation"] = self.operation
        if self.operation == "lossy-compression":
            members |= error_members(parent, child)
        elif self.operation == "crop":
            members |= {"x": self.x, "y": self.y}
        elif self.operation == "correction":
            if not self.reason:
                raise FixInput("a correction needs its --reason")
            if not changed:
                raise FixInput("nothing was corrected: the images are equal in all that is bound")
            members["reason"] = self.reason
        return Statement("derived", members)


def _without_changed(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if name != "changed"}


def error_members(parent: Image, child: Image) -> dict[str, Any]:
    """Maximum and mean absolute error as a statement has them: the mean rounded to six digits, half up."""
    found = errors(parent, child)
    millionths = (found.mean * 2_000_000 + 1) // 2
    return {"maximum_error": found.maximum, "mean_error": f"{millionths // 1_000_000}.{millionths % 1_000_000:06d}"}


def recomputed(parent: Image, child: Image, statement: Statement) -> dict[str, Any]:
    """What somebody who has both images finds of what a receipt declares. Raises FixInput where they can't be compared."""
    if statement.operation == "lossy-compression":
        found = error_members(parent, child)
        return {
            "declared": {name: statement.members[name] for name in found},
            "found": found,
            "holds": all(statement.members[name] == value for name, value in found.items()),
        }
    survived = surviving_tiles(parent.digest("px1-sha256"), child, statement.members.get("x", 0), statement.members.get("y", 0))
    return {
        "surviving_tiles": len(survived.tiles),
        "tiles_inside": survived.inside,
        "tiles_of_parent": survived.total,
        "holds": True,
        "tiles": [
            {"frame": tile.frame, "x": tile.x, "y": tile.y, "width": tile.width, "height": tile.height}
            for tile in survived.tiles
        ],
    }


def enrolment_target(key: bytes, fingerprint: bytes, roles: int) -> bytes:
    """What persons approve when a key is enrolled (FORMAT.md §3.3)."""
    return hashlib.sha256(b"scanseal/enrol\0" + key + fingerprint + bytes([roles])).digest()


def revocation_target(key: bytes) -> bytes:
    """What persons approve when a key is revoked (FORMAT.md §3.3)."""
    return hashlib.sha256(b"scanseal/revoke\0" + key).digest()
