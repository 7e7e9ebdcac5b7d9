"""The loop of a site whose log a node keeps: hands its records in, follows the log, and leaves evidence for others to find.

It has the duties of `ledger.wiring.carrying.Carrier` at such a site: whatever a step raises is kept for the status, the node is
asked again after 1, 2, 4 ... up to 60 seconds, and everything can be killed at any moment.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

from ledger.core.errors import FixInput, ScanSealError, Stop, TryLater
from ledger.log.following import Following
from ledger.wiring.anchors import Carried, only_one
from ledger.wiring.standing import Alarm, Situation, Standing, Status

TICK_S: Final = 0.25
"""How often the journal is looked at for something to hand in."""
SOON_S: Final = 0.5
"""When the log is looked at after something was handed in: the node sequences within a second."""
LOOK_S: Final = 15.0
"""How often the log is followed when there is nothing to hand in."""
RETRY_S: Final = (1.0, 60.0)
UNREACHED_S: Final = 600.0
"""A node that is out of reach for longer than this is an alarm."""
LEAVE_S: Final = 5.0


class HandingIn:
    """One site's loop. `leave` leaves evidence of what is final with the node, and tells whether there may be more.

    Any number of processes may run one: the one that holds `lock` works, the others wait for it.
    """

    def __init__(
        self,
        following: Following,
        standing: Standing,
        lock: Path,
        leave: Callable[[], bool],
        node: str,
        *,
        clock: Callable[[], float] = time.time,
        look_s: float = LOOK_S,
    ) -> None:
        self._following, self._standing, self._lock, self._leave = following, standing, lock, leave
        self._node = node
        self._clock, self._look_s = clock, look_s
        self._wake = threading.Event()
        self._doing = "nothing yet"
        self._error: str | None = None
        self._stopped: str | None = None
        self._unreached_since: float | None = None
        self._failures = 0
        self._leaves_more = False
        self._advanced = (clock(), -1)

    # ---- by itself --------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Works until `stop` is set, once. Raises nothing: see `status`."""
        worker = threading.Thread(target=self._work, args=(stop,), name="scanseal handing in", daemon=True)
        worker.start()
        stop.wait()
        self._wake.set()
        worker.join(LEAVE_S)

    def wake(self) -> None:
        """Has what was queued just now handed in at once."""
        self._wake.set()

    def _work(self, stop: threading.Event) -> None:
        with ExitStack() as held:
            while not stop.is_set():
                try:
                    held.enter_context(only_one(self._lock))
                    break
                except ScanSealError:
                    self._doing = "another process hands in for this site"
                    stop.wait(1.0)
            look_at = 0.0
            while not stop.is_set():
                if self._following.has_new() or time.monotonic() >= look_at:
                    wait_s = self._tried()
                    look_at = time.monotonic() + wait_s
                    if self._failures:
                        stop.wait(wait_s)
                        continue
                self._wake.wait(TICK_S)
                self._wake.clear()

    def _tried(self) -> float:
        """Does what is to be done now; when to look again, in seconds."""
        try:
            self.turn()
        except Exception as error:  # noqa: BLE001 - a loop that must outlive its own mistakes
            self._failed(error)
            self._failures += 1
            return min(RETRY_S[0] * 2.0 ** min(self._failures - 1, 16), RETRY_S[1])
        self._failures = 0
        waiting = self._following.waiting()
        self._doing = f"{waiting} records wait for their place in the log" if waiting else "every record is in the log"
        return 0.0 if self._leaves_more else SOON_S if waiting else self._look_s

    def _failed(self, error: Exception) -> None:
        known = isinstance(error, ScanSealError)
        self._error = str(error) if known else f"internal error ({type(error).__name__}): please report it"
        if isinstance(error, Stop):
            self._stopped = self._error
        if isinstance(error, TryLater):
            self._unreached_since = self._unreached_since or self._clock()

    # ---- a turn -----------------------------------------------------------------------------------------------------

    def turn(self) -> int:
        """Takes over what the log has, and hands in what is queued; how many records were handed in.

        The log is followed first: to one with two histories nothing is handed in. Otherwise a step that fails keeps no other
        from being tried: records are handed in while the chain is out of reach.
        """
        handed, errors = 0, []

        def hand_in() -> None:
            nonlocal handed
            handed = self._following.hand_in()

        def leave() -> None:
            self._leaves_more = self._leave()

        for step in (self._following.settle, self._following.follow, hand_in, leave):
            try:
                step()
            except Stop:
                raise
            except ScanSealError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        self._error = self._stopped = self._unreached_since = None
        return handed

    def status(self) -> Status:
        """How it stands. Raises TryLater where the store cannot be read."""
        status = self._standing.status(Situation(doing=self._doing, error=self._error))
        alarms = [Alarm("key held", why) for why in self._following.held.values()]
        if self._stopped is not None:
            alarms.append(Alarm("log disagrees", self._stopped))
        elif self._unreached_since is not None and self._clock() - self._unreached_since >= UNREACHED_S:
            minutes = int(self._clock() - self._unreached_since) // 60
            alarms.append(Alarm("node out of reach", f"for {minutes} min: {self._error or 'no answer'}"))
        elif left_out := self._left_out():
            alarms.append(Alarm("records left out", left_out))
        return replace(status, alarms=tuple(alarms), node=self._node)

    def _left_out(self) -> str | None:
        """What to say where the node takes records and does not put them into the log."""
        now, place = self._clock(), self._following.last_own()
        if place != self._advanced[1] or not self._following.is_waiting():
            self._advanced = now, place
        if (since := now - self._advanced[0]) < UNREACHED_S:
            return None
        return f"for {int(since) // 60} min records of this site have been handed in and none of them came into the log"

    # ---- once, for a person who waits ---------------------------------------------------------------------------------

    def queued(self) -> int:
        return self._following.waiting()

    def sequence(self, progress: Callable[[int], None]) -> int:
        """Hands in everything that is queued; how many records. Raises as `turn`."""
        handed = self.turn()
        progress(handed)
        return handed

    def carry(self, *, wait: Literal["final", "included", "none"], timeout_s: float, publish_leaves: bool) -> Carried:
        """Follows the log until this site's records are final; `included` waits for that, too, since only what is final is
        proven here. Raises FixInput for `publish_leaves`: that is the node's to decide."""
        if publish_leaves:
            raise FixInput("--publish-leaves: the node anchors, and decides what it publishes")
        deadline = time.monotonic() + timeout_s
        before = self._standing.final_size()
        while True:
            self.turn()
            size, final = self._following.last_own() + 1, self._standing.final_size()
            reached = not self._following.waiting() and final >= size
            if reached or wait == "none" or time.monotonic() > deadline:
                break
            time.sleep(SOON_S)
        new = tuple(self._standing.anchors_above(before))
        return Carried(self._standing.log_size(), final, new, reached or wait == "none")
