"""An audit's workbook: a SQLite file of its own, beside no site's database."""

from ledger.store.audit.workbook import Workbook

__all__ = ["Workbook"]
