"""The site's anchors and the block headers of beacons, in the database: `ledger.log.anchoring.Book`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, delete, func, insert, select

from ledger.core.contracts import Beacon
from ledger.core.evidence import State
from ledger.core.stateproof import parse_header
from ledger.log.anchoring import ORDER, AnchorRow
from ledger.log.schedule import Anchored
from ledger.store.engine import Store
from ledger.store.schema import anchor, block_header

_BEACON_SIZE = 40


class AnchorStore:
    """The anchors that this database holds. Duties: `ledger.log.anchoring.Book`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def rows(self, above: int = 0) -> list[AnchorRow]:
        """The anchors larger than `above`, by size."""
        query = select(anchor).where(anchor.c.new_size > above).order_by(anchor.c.new_size)
        with self._store.reading() as connection:
            return [_row(row) for row in connection.execute(query)]

    def row(self, new_size: int) -> AnchorRow | None:
        with self._store.reading() as connection:
            found = connection.execute(select(anchor).where(anchor.c.new_size == new_size)).one_or_none()
        return None if found is None else _row(found)

    def unsettled(self) -> list[AnchorRow]:
        """The anchors without a proof, by size."""
        query = select(anchor).where(anchor.c.proof.is_(None)).order_by(anchor.c.new_size)
        with self._store.reading() as connection:
            return [_row(row) for row in connection.execute(query)]

    def proven(self, limit: int) -> list[AnchorRow]:
        """The largest anchors with a proof, by size."""
        query = select(anchor).where(anchor.c.proof.is_not(None)).order_by(anchor.c.new_size.desc()).limit(limit)
        with self._store.reading() as connection:
            return [_row(row) for row in connection.execute(query)][::-1]

    def final_above(self, after: int, limit: int) -> list[AnchorRow]:
        """The first final anchors with a proof whose size is above `after`, by size."""
        query = select(anchor).where(anchor.c.new_size > after, anchor.c.state == "final", anchor.c.proof.is_not(None))
        with self._store.reading() as connection:
            return [_row(row) for row in connection.execute(query.order_by(anchor.c.new_size).limit(limit))]

    def state_of(self, log_index: int) -> str | None:
        """The furthest state of an anchor whose tree has the leaf; None where none is on chain."""
        query = select(anchor.c.state).where(anchor.c.new_size > log_index).distinct()
        with self._store.reading() as connection:
            states = set(connection.execute(query).scalars())
        return next((state for state in reversed(ORDER[1:]) if state in states), None)

    def made(self, since: int) -> list[Anchored]:
        """What was sent since a time (seconds since 1970) and is on chain, as a forecast needs it."""
        columns = anchor.c
        query = select(columns.sent, columns.new_size - columns.old_size, columns.gas_used, columns.fee_wei).where(
            columns.sent >= since, columns.state != "sequenced"
        )
        with self._store.reading() as connection:
            rows = connection.execute(query).all()
        return [Anchored(sent, records, gas, None if fee is None else int(fee)) for sent, records, gas, fee in rows]

    def last_sent(self) -> int | None:
        """When the newest anchor on chain was sent."""
        query = select(func.max(anchor.c.sent)).where(anchor.c.state != "sequenced")
        with self._store.reading() as connection:
            last: int | None = connection.execute(query).scalar_one()
        return last

    def covering(self, log_index: int) -> AnchorRow | None:
        """The first final anchor whose tree has the leaf."""
        query = (
            select(anchor)
            .where(anchor.c.new_size > log_index, anchor.c.state == "final", anchor.c.proof.is_not(None))
            .order_by(anchor.c.new_size)
            .limit(1)
        )
        with self._store.reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _row(row)

    def put(self, row: AnchorRow) -> None:
        values = {
            "new_size": row.new_size,
            "old_size": row.old_size,
            "checkpoint": row.checkpoint,
            "beacons": b"".join(beacon.number.to_bytes(8, "big") + beacon.hash for beacon in row.beacons),
            "block_number": row.block_number,
            "block_hash": row.block_hash,
            "block_time": row.block_time,
            "gas_used": row.gas_used,
            "state": row.state,
            "proof": row.proof.model_dump_json().encode() if row.proof else None,
            "fee_wei": None if row.fee_wei is None else str(row.fee_wei),
            "sent": row.sent,
        }
        with self._store.writing() as connection:
            connection.execute(delete(anchor).where(anchor.c.new_size == row.new_size))
            connection.execute(insert(anchor).values(values))

    def drop(self, new_size: int) -> None:
        with self._store.writing() as connection:
            connection.execute(delete(anchor).where(anchor.c.new_size == new_size))

    def keep_header(self, number: int, block_hash: bytes, rlp: bytes) -> None:
        """Keeps a block header that a record names as its beacon."""
        with self._store.writing() as connection:
            known = connection.execute(select(block_header.c.number).where(block_header.c.hash == block_hash)).one_or_none()
            if known is None:
                connection.execute(insert(block_header).values(hash=block_hash, number=number, rlp=rlp))

    def newest_header(self) -> tuple[Beacon, int] | None:
        """The newest block that was kept, as a beacon, with its time."""
        query = select(block_header.c.rlp).order_by(block_header.c.number.desc()).limit(1)
        with self._store.reading() as connection:
            rlp = connection.execute(query).scalar_one_or_none()
        if rlp is None:
            return None
        header = parse_header(rlp)
        return Beacon(header.number, header.hash), header.timestamp

    def included_size(self) -> int:
        """The log size up to which records are in a block, as far as this store knows."""
        query = select(func.max(anchor.c.new_size)).where(anchor.c.state != "sequenced")
        with self._store.reading() as connection:
            return connection.execute(query).scalar_one() or 0

    def final_size(self) -> int:
        """The log size up to which records are final on chain."""
        query = select(func.max(anchor.c.new_size)).where(anchor.c.state == "final")
        with self._store.reading() as connection:
            return connection.execute(query).scalar_one() or 0

    def headers(self, hashes: Sequence[bytes]) -> dict[bytes, bytes]:
        """hash -> header (RLP), of those that were kept."""
        with self._store.reading() as connection:
            rows = connection.execute(select(block_header.c.hash, block_header.c.rlp).where(block_header.c.hash.in_(hashes)))
            return {row.hash: row.rlp for row in rows}


def _row(row: Row[Any]) -> AnchorRow:
    beacons = tuple(
        Beacon(int.from_bytes(row.beacons[start : start + 8], "big"), row.beacons[start + 8 : start + _BEACON_SIZE])
        for start in range(0, len(row.beacons), _BEACON_SIZE)
    )
    return AnchorRow(
        row.new_size,
        row.old_size,
        row.checkpoint,
        beacons,
        row.state,
        row.block_number,
        row.block_hash,
        row.block_time,
        row.gas_used,
        State.model_validate_json(row.proof) if row.proof else None,
        None if row.fee_wei is None else int(row.fee_wei),
        row.sent,
    )
