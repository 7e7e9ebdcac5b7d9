"""Work in processes of its own: neither a decoder that crashes nor Python's lock holds up what is being received.

A worker process lives as long as the agent: when the agent's end of the pipe between them closes, however it died, the worker
ends. One that dies is started again. Over the pipe the agent wakes the worker, and the worker tells of its trouble.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Final

from ledger.agent.agent import Part
from ledger.core.errors import ScanSealError

LOG = logging.getLogger(__name__)

RESTART_AFTER_S: Final = 1.0
STOP_WITHIN_S: Final = 20.0


class WorkerProcess:
    """A `Part` that runs `work(*arguments, Line)` in a process of its own, again when it dies."""

    def __init__(
        self, name: str, work: Callable[..., None], arguments: tuple[Any, ...], say: Callable[[str, str], None]
    ) -> None:
        self.name, self._work, self._arguments, self._say = name, work, arguments, say
        # Forked from a process that has loaded the worker's module and nothing else: a worker is there in 20 ms, not in 2 s.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([work.__module__])
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=name, daemon=True)
        self._process: Any = None
        self._line: Connection | None = None
        self.restarts = 0
        self.state: dict[str, Any] = {}
        """What the worker told of itself last; in `troubles`, part -> what does not work, None where it does."""

    def start(self) -> None:
        self._begin()
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._hang_up()
        self._process.join(STOP_WITHIN_S)
        if self._process.is_alive():
            self._process.kill()
        self._thread.join(5.0)

    def wake(self) -> None:
        """Never waits: a worker that is busy has been woken often enough."""
        line = self._line
        if line is not None:
            with suppress(OSError):
                os.write(line.fileno(), b"w")

    @property
    def pid(self) -> int | None:
        """None where it does not run."""
        return self._process.pid if self._process is not None and self._process.is_alive() else None

    def _begin(self) -> None:
        ours, theirs = self._context.Pipe()
        os.set_blocking(ours.fileno(), False)
        self._process = self._context.Process(
            target=_main, args=(self._work, self._arguments, theirs), name=self.name, daemon=True
        )
        self._process.start()
        theirs.close()
        self._line = ours

    def _hang_up(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def _watch(self) -> None:
        buffered = b""
        while not self._stopping.is_set():
            line = self._line
            try:
                if line is None or not line.poll(0.5):
                    continue
                told = os.read(line.fileno(), 65_536)
            except (OSError, ValueError):
                told = b""
            if told:
                *lines, buffered = (buffered + told).split(b"\n")
                for one in lines:
                    self._heard(json.loads(one))
                continue
            if self._stopping.is_set():
                return
            self._process.join(5.0)
            if self._process.is_alive():  # it lost the line, and does not end
                self._process.kill()
                self._process.join(5.0)
            code = self._process.exitcode
            self._say(self.name, f"its process ended (exit code {code}); it is started again")
            self.restarts += 1
            self._hang_up()
            buffered = b""
            while not self._stopping.wait(RESTART_AFTER_S * min(30, self.restarts)):
                try:
                    self._begin()
                    break
                except OSError as error:
                    self._say(self.name, f"its process cannot be started ({error.strerror}); it is tried again")

    def _heard(self, told: dict[str, Any]) -> None:
        if "part" in told:
            self._say(str(told["part"]), str(told["reason"]))
        else:
            self.state = told
            for part, reason in ({self.name: None} | dict(told.get("troubles", {}))).items():
                self._say(part, str(reason or ""))


class Loop:
    """A `Part` of a function that runs until an event is set."""

    def __init__(self, name: str, run: Callable[[threading.Event], None]) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=run, args=(self._stop,), name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(STOP_WITHIN_S / 2)


class Line:
    """A worker's end: woken over it, telling over it, ended when it is cut."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._told: dict[str, Any] = {}

    def say(self, part: str, reason: str) -> None:
        self.tell({"part": part, "reason": reason})

    def tell(self, told: dict[str, Any]) -> None:
        with self._lock, suppress(OSError):
            os.write(self._connection.fileno(), json.dumps(told).encode() + b"\n")

    def _tell_changes(self, state: dict[str, Any]) -> None:
        if state != self._told:
            self._told = state
            self.tell(state)

    def serve(self, parts: Sequence[Part], wakes: Sequence[threading.Event], state: Callable[[], dict[str, Any]]) -> None:
        """Runs the parts until the line is cut."""
        for part in parts:
            part.start()
        try:
            while True:
                try:
                    with suppress(ScanSealError):
                        self._tell_changes(state())
                    if self._connection.poll(2.0):
                        if not os.read(self._connection.fileno(), 65_536):
                            return
                        for wake in wakes:
                            wake.set()
                except OSError:
                    return
        finally:
            for part in reversed(parts):
                part.stop()


def _main(work: Callable[..., None], arguments: tuple[Any, ...], connection: Connection) -> None:
    # The agent decides when a worker ends: Ctrl-C reaches the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        work(*arguments, Line(connection))
    except Exception:
        # Not the traceback that multiprocessing would print: an error's message may name an image.
        LOG.exception("a worker failed")
        raise SystemExit(1) from None
