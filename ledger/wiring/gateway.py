"""A gateway's records of what came to it over the network: never an acquisition."""

from __future__ import annotations

from collections.abc import Sequence

from ledger.core.custody import Statement
from ledger.core.errors import FixInput
from ledger.core.records import CustodyRecord
from ledger.dicom import Image
from ledger.register import Claim, Sealer
from ledger.store.journal import JournalStore
from ledger.store.records import StoredRecord
from ledger.store.spool import Sealing
from ledger.wiring.beacons import Beacons
from ledger.wiring.custody import Holdings

UNKNOWN_ORIGIN = "no record of it is here: of unknown origin, and a gateway makes no acquisition of it"


class Receiving:
    """One gateway key that records the images it received: `received` where they were handed over to it, else `stored`."""

    def __init__(self, sealer: Sealer, journal: JournalStore, beacons: Beacons) -> None:
        self._sealer, self._journal, self._beacons = sealer, journal, beacons

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
            except FixInput:
                outcomes.append(Sealing(number, "refused", detail=UNKNOWN_ORIGIN))
                continue
            known = self._own(held.record)
            outcomes.append(Sealing(number, "received", known or self._record(held.record)))
        return outcomes

    def _own(self, newest: StoredRecord) -> bytes | None:
        record = newest.signed.record
        is_ours = isinstance(record, CustodyRecord) and record.key == self.key and record.action in ("received", "stored")
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
