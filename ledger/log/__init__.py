"""The transparency log of a device, a site or a trial: append, prove, mirror, check. FORMAT.md §4."""

from ledger.log.check import check
from ledger.log.log import Log
from ledger.log.mirror import Mirror
from ledger.log.storage import Batch, Published, Storage

__all__ = ["Batch", "Log", "Mirror", "Published", "Storage", "check"]
