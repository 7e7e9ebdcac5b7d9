"""A gateway's records of what came to it over the network: never an acquisition. docs/decisions/008."""

from __future__ import annotations

from collections.abc import Sequence

from ledger.core.custody import Statement
from ledger.core.errors import FixInput, Unreadable
from ledger.core.records import CustodyRecord, GatewayRecord
from ledger.dicom import Image
from ledger.register import Claim, Sealer
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
        for number, image in images:
            try:
                held = holdings.held(image)
            except Unreadable:
                raise
            except FixInput:
                outcomes.append(Sealing(number, "received", self._held(image)))
                continue
            known = self._own(held.record)
            outcomes.append(Sealing(number, "received", known or self._record(held.record)))
        return outcomes

    def _held(self, image: Image) -> bytes:
        """The record of an image of unknown origin; the one that there is where this key has signed it before."""
        beacon, beacon_time = self._beacons.current()
        return self._sealer.receive([sealable(image, self._hash_name)], beacon, beacon_time)[0].record_id

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
