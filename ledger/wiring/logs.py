"""Structured logs of long-running processes: one JSON object a line, on standard error, without anything of an image.

What this package logs are words, counts and names from its own settings. Libraries may put a value of an image into a message
(a peer's UID, a file's name), so that of theirs only the place is kept. Nothing else writes to standard error: what Python
would print by itself (a thread's, a worker's or a finaliser's traceback) goes the same way, and a log record that cannot be
written is dropped.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any

import structlog

OWN = "ledger"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class WithoutValues(logging.Filter):
    """Keeps of a library's record only where it was written; of ours the words and what was given as `extra`."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] == OWN:
            extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        else:
            if record.levelno < logging.WARNING:
                return False
            extra = {"library": record.name, "place": f"{record.module}:{record.lineno}"}
            record.msg, record.args = "a library's warning", ()
        if record.exc_info and record.exc_info[1] is not None:
            extra["error"] = where(record.exc_info[1])
        record.exc_info = record.exc_text = record.stack_info = None
        record.__dict__["shown"] = extra
        return True


def where(error: BaseException) -> str:
    """An error's type and the line that raised it: its message may name an image."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else ""
    return type(error).__name__ + place


def _shown(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    record = event.get("_record")
    return {"event": event["event"], "level": event["level"]} | dict(getattr(record, "shown", {}))


def configure(process: str = "agent") -> None:
    """Sends every log record of this process to standard error as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(WithoutValues())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level],
            processors=[
                _shown,
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
                _named(process),
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.raiseExceptions = False
    logging.captureWarnings(True)
    logging.getLogger("pynetdicom").setLevel(logging.WARNING)
    threading.excepthook = _thread_failed
    sys.excepthook = _failed
    sys.unraisablehook = _unraisable


def _named(process: str) -> Any:
    def add(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["process"] = process
        return event

    return add


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_value is not None:
        name = failure.thread.name if failure.thread is not None else "?"
        logging.getLogger(OWN).error("a thread failed", extra={"part": name, "error": where(failure.exc_value)})


def _unraisable(failure: sys.UnraisableHookArgs) -> None:
    if failure.exc_value is not None:
        logging.getLogger(OWN).error("a clean-up failed", extra={"error": where(failure.exc_value)})


def _failed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger(OWN).error("the process failed", extra={"error": where(error.with_traceback(trace))})
