"""A gateway's records of what came to it over the network: never an acquisition. docs/decisions/008."""

from __future__ import annotations

from collections.abc import Sequence

from ledger.core.custody import Statement
from ledger.core.errors import FixInput, Unreadable
from ledger.core.records import CustodyRecord, GatewayRecord
from ledger.dicom import Image
from ledger.register import Claim, Sealable, Sealer
from ledger.store.journal import JournalStore
from ledger.store.records import StoredRecord
from ledger.store.spool import Sealing
from ledger.wiring.beacons import Beacons
from ledger.wiring.custody import Holdings
from ledger.wiring.images import sealable


class Receiving:
    """One gateway key that records the images it received: `received` where they were handed over to it, `stored` where another
    record of them is known, and where none is a GatewayRecord, which says that it held them and no more."""

    def __init__(self, sealer: Sealer, journal: JournalStore, beacons: Beacons, hash_name: str) -> None:
        self._sealer, self._journal, self._beacons, self._hash_name = sealer, journal, beacons, hash_name

    @property
    def key(self) -> bytes:
        return self._sealer.key

    def receive(self, images: Sequence[tuple[int, Image]]) -> list[Sealing]:
        """What became of each. An image whose trail ends with this key's own record of it gives that one again."""
        holdings = Holdings(self._journal)
        outcomes: list[Sealing] = []
        unknown: list[tuple[int, Sealable]] = []
        for number, image in images:
            try:
                held = holdings.held(image)
            except Unreadable:
                raise
            except FixInput:
                unknown.append((number, sealable(image, self._hash_name)))
                continue
            known = self._own(held.record)
            outcomes.append(Sealing(number, "received", known or self._record(held.record)))
        return outcomes + self._held(unknown)

    def _held(self, images: Sequence[tuple[int, Sealable]]) -> list[Sealing]:
        """The records of images of unknown origin; those that there are where this key has signed them before."""
        if not images:
            return []
        beacon, beacon_time = self._beacons.current()
        receipts = self._sealer.receive([image for _, image in images], beacon, beacon_time)
        return [Sealing(number, "received", receipt.record_id) for (number, _), receipt in zip(images, receipts, strict=True)]

    def _own(self, newest: StoredRecord) -> bytes | None:
        record = newest.signed.record
        is_held = isinstance(record, CustodyRecord) and record.action in ("received", "stored")
        is_ours = record.key == self.key and (is_held or isinstance(record, GatewayRecord))
        return newest.record_id if is_ours else None

    def _record(self, before: StoredRecord) -> bytes:
        record = before.signed.record
        is_handed_over = (
            isinstance(record, CustodyRecord) and record.action == "transferred" and Statement.of(record).recipient == self.key
        )
        statement = Statement("received" if is_handed_over else "stored")
        own = {"parents": (before.record_id,), "action": statement.action, "statement": statement.text()}
        beacon, beacon_time = self._beacons.current()
        claim = Claim(record.content, record.profile, own, before.generator)
        return self._sealer.state(CustodyRecord, [claim], beacon, beacon_time)[0].record_id
