"""Encrypted evidence that sites deposited, found by a token that only the holder of the image can compute. FORMAT.md §12."""

from __future__ import annotations

from typing import Final

from sqlalchemy import delete, func, insert, select

from ledger.core.errors import FixInput
from ledger.store.engine import Store
from ledger.store.schema import deposited

PER_TOKEN: Final = 16
"""Sites that may deposit under one token."""


class DepositStore:
    """The deposits of a database: one for each token and site, so that no site can take another's away."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, client: str, token: bytes, body: bytes, now: int) -> bool:
        """Keeps a site's deposit, in place of an older one; whether there was none. `now` in microseconds since 1970.

        Raises FixInput where too many sites have one under this token.
        """
        columns = deposited.c
        with self._store.writing() as connection:
            gone = connection.execute(delete(deposited).where(columns.find == token, columns.client == client)).rowcount
            count = connection.execute(select(func.count()).where(columns.find == token)).scalar_one()
            if count >= PER_TOKEN:
                raise FixInput(f"{count} sites deposited evidence under this token already")
            connection.execute(insert(deposited).values(find=token, client=client, body=body, received=now))
        return gone == 0

    def remove(self, client: str, token: bytes) -> bool:
        """Whether the site had a deposit under this token."""
        columns = deposited.c
        with self._store.writing() as connection:
            gone = connection.execute(delete(deposited).where(columns.find == token, columns.client == client))
        return gone.rowcount == 1

    def get(self, token: bytes) -> list[bytes]:
        """What is deposited under a token, the newest first."""
        columns = deposited.c
        query = select(columns.body).where(columns.find == token).order_by(columns.received.desc(), columns.client)
        with self._store.reading() as connection:
            return [row.body for row in connection.execute(query)]
