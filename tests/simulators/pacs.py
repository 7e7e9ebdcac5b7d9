"""A PACS that fails on demand: pynetdicom's SCP, with switches for its faults.

with pacs(free_port()) as one:
    one.fault = "slow"
    ...  # what is stored there now is answered after `delay_s`
"""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydicom.uid import AllTransferSyntaxes, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage, MRImageStorage, Verification

REFUSALS = {"out of resources": 0xA700, "cannot understand": 0xC000, "does not match": 0xA900}
"""Fault -> the status that it answers, PS3.4 Table B.2-1. Nothing is kept."""
FAULTS = (*REFUSALS, "slow", "hangs", "aborts", "keeps and aborts", "warns")


class Pacs:
    """`fault` is one of FAULTS, or None; it may be changed at any time. `only`: the fault is for this instance alone."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.fault: str | None = None
        self.only: str | None = None
        self.delay_s = 3.0
        self.stored: dict[str, list[str]] = defaultdict(list)
        """instance -> digest of the data set, of each time that it was stored."""
        self.asked = 0
        self.released = threading.Event()
        """Ends what hangs."""
        self._server: Any = None

    def start(self, syntaxes: list[str] | None = None) -> None:
        """Listens, for these transfer syntaxes (all)."""
        entity = AE(ae_title="ORTHANC")
        for one in (CTImageStorage, MRImageStorage):
            entity.add_supported_context(one, syntaxes or list(AllTransferSyntaxes))
        entity.add_supported_context(Verification)
        entity.network_timeout = entity.dimse_timeout = 60
        handlers = [(evt.EVT_C_STORE, self._stored)]
        self._server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def stop(self) -> None:
        self.released.set()
        if self._server is not None:
            self._server.shutdown()
            self._server = None
        self.released.clear()

    def held(self) -> dict[str, list[str]]:
        """An archive keeps an instance once, however often it is stored; what differs it would have as another."""
        return {uid: sorted(set(digests)) for uid, digests in self.stored.items()}

    def _stored(self, event: Any) -> int:
        self.asked += 1
        uid = str(event.request.AffectedSOPInstanceUID)
        fault = self.fault if self.only in (None, uid) else None
        if fault == "slow":
            self.released.wait(self.delay_s)
        elif fault == "hangs":
            self.released.wait(60.0)
            return 0xA700
        elif fault == "aborts":
            event.assoc.abort()
            return 0xA700
        if fault in REFUSALS:
            return REFUSALS[fault]
        self.stored[uid].append(hashlib.sha256(event.request.DataSet.getvalue()).hexdigest())
        if fault == "keeps and aborts":
            event.assoc.abort()
        return 0xB000 if fault == "warns" else 0x0000


@contextmanager
def pacs(port: int, syntaxes: list[str] | None = None) -> Iterator[Pacs]:
    one = Pacs(port)
    one.start(syntaxes)
    try:
        yield one
    finally:
        one.stop()


UNCOMPRESSED_ONLY = [ExplicitVRLittleEndian]
