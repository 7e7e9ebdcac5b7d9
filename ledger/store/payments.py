"""What the site's transactions cost: `ledger.log.anchoring.Purse` and `ledger.chain.transactions.Outbox`, in the database.

Transactions with one nonce are one payment: a block takes at most one of them. It counts as what it cost; while that is not
known, as the most that any of them can cost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import delete, insert, select, update

from ledger.log.anchoring import Sent
from ledger.store.engine import Store
from ledger.store.schema import payment

KEEP_S: Final = 30 * 86_400
"""How long settled payments are kept."""


class PaymentStore:
    """The payments that this database holds. `clock` gives seconds since 1970."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store, self._clock = store, clock

    def note(self, transaction: bytes, nonce: int, most_wei: int) -> None:
        now = int(self._clock())
        values = {"nonce": nonce, "sent": now, "most_wei": str(most_wei), "fee_wei": None, "final": 0}
        with self._store.writing() as connection:
            connection.execute(delete(payment).where(payment.c.transaction == transaction))
            connection.execute(delete(payment).where(payment.c.final == 1, payment.c.sent < now - KEEP_S))
            connection.execute(insert(payment).values(transaction=transaction, **values))

    def open_nonces(self) -> set[int]:
        return {sent.nonce for sent in self.open()}

    def open(self) -> list[Sent]:
        columns = payment.c
        query = select(columns.transaction, columns.nonce, columns.most_wei, columns.fee_wei).where(columns.final == 0)
        with self._store.reading() as connection:
            rows = connection.execute(query.order_by(columns.nonce)).all()
        return [Sent(bytes(hashed), nonce, int(most), None if fee is None else int(fee)) for hashed, nonce, most, fee in rows]

    def settle(self, transaction: bytes, fee_wei: int | None, *, is_final: bool) -> None:
        values = {"fee_wei": None if fee_wei is None else str(fee_wei), "final": int(is_final)}
        with self._store.writing() as connection:
            connection.execute(update(payment).where(payment.c.transaction == transaction).values(values))

    def spent(self, since: int) -> int:
        """Wei of the payments whose last transaction was sent at `since` (seconds since 1970) or later."""
        columns = payment.c
        query = select(columns.nonce, columns.most_wei, columns.fee_wei).where(
            columns.nonce.in_(select(columns.nonce).where(columns.sent >= since))
        )
        with self._store.reading() as connection:
            rows = connection.execute(query).all()
        by_nonce: dict[int, list[tuple[int, int | None]]] = {}
        for nonce, most, fee in rows:
            by_nonce.setdefault(nonce, []).append((int(most), None if fee is None else int(fee)))
        return sum(_cost(group) for group in by_nonce.values())


def _cost(group: list[tuple[int, int | None]]) -> int:
    """Of transactions with one nonce, as (most, fee)."""
    paid = [fee for _, fee in group if fee]
    unknown = [most for most, fee in group if fee is None]
    return max(paid) if paid else max(unknown, default=0)
