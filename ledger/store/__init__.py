"""The database: SQLite beside the device or PostgreSQL, one schema, one door (`open_store`). The only importer of SQLAlchemy.

A store holds one log and, on a device, that device's records. A second trial gets a second database.
"""

from ledger.store.engine import Store, open_store
from ledger.store.log import LogStore

__all__ = ["LogStore", "Store", "open_store"]
