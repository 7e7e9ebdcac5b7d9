"""The loop that carries a site's records into its log and onto the chain by itself.

Two threads: one sequences and never waits for the chain, one looks at the chain, settles what is there, decides and anchors.
Whatever a step raises is kept for the status, the other steps go on; the chain is asked again after 1, 2, 4 ... up to 60
seconds. Everything can be killed at any moment: what was done is seen in the store and on the chain by the next run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

from ledger.core.errors import FixInput, NeedPermission, ScanSealError, Stop, TryLater
from ledger.log import Log
from ledger.log.anchoring import Anchoring, AnchorRow, View
from ledger.log.schedule import DAY_S, Policy, day_start, decide, estimated_gas
from ledger.log.sequencing import Queue, Sequencing
from ledger.store.anchors import AnchorStore
from ledger.store.payments import PaymentStore
from ledger.wiring.anchors import RECENT, only_one
from ledger.wiring.standing import FORECAST_DAYS, Situation, Standing, Status

TICK_S: Final = 0.25
"""How often the store is looked at for something to do."""
SETTLE_S: Final = 12.0
"""How often the chain is asked about anchors that are not final: a slot of a public chain."""
LOOK_S: Final = 60.0
"""How often the chain is asked when there is nothing to do."""
FIRST_RETRY_S: Final = 1.0
LAST_RETRY_S: Final = 60.0
LEAVE_S: Final = 1.0
"""How long a loop that is stopped waits for a question that the chain has not answered."""
WORKER: Final = "scanseal anchoring"


class Carrier:
    """One site's loop. `connect` gives the anchoring once the chain answers; the event stops what it sends. `believe` is told
    of anchors that are final and proven; `let_time_pass` makes a devnet's next block. `clock` gives seconds since 1970.

    Any number of processes may run one: all sequence, one of them at a time (who holds `lock`) anchors.
    """

    def __init__(
        self,
        log: Log,
        queue: Queue,
        anchors: AnchorStore,
        payments: PaymentStore,
        connect: Callable[[threading.Event], Anchoring],
        policy: Policy,
        lock: Path,
        *,
        believe: Callable[[Sequence[AnchorRow]], None],
        let_time_pass: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.time,
        tick_s: float = TICK_S,
        settle_s: float = SETTLE_S,
        look_s: float = LOOK_S,
        retry_s: tuple[float, float] = (FIRST_RETRY_S, LAST_RETRY_S),
    ) -> None:
        self._log, self._anchors, self._payments = log, anchors, payments
        self._sequencing = Sequencing(log, queue)
        self._connect, self._policy, self._lock = connect, policy, lock
        self._believe, self._let_time_pass, self._clock = believe, let_time_pass, clock
        self._tick_s, self._settle_s, self._look_s, self._retry_s = tick_s, settle_s, look_s, retry_s
        self._standing = Standing(log, queue, anchors, payments, policy, clock)
        self._situation = Situation()
        self._sequencing_error: str | None = None
        self._last_status: Status | None = None
        self._wake = threading.Event()
        self._anchoring: Anchoring | None = None
        self._waiting_since: float | None = None
        self._owes = False
        self._sequenced = self._began = False
        self._hold_until = 0.0
        self._failures = 0
        self._not_before = self._settle_at = self._look_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Carries until `stop` is set, once; returns within about a second after that. What is under way then is found by the
        next loop. Raises nothing: see `status`."""
        worker = threading.Thread(target=self._anchor_until, args=(stop,), name=WORKER, daemon=True)
        worker.start()
        failures = 0
        while not stop.is_set():
            failures = 0 if self._sequence(stop) else failures + 1
            self._wake.wait(self._tick_s * min(2**failures, 16))
            self._wake.clear()
        worker.join(LEAVE_S)

    def wake(self) -> None:
        """Has what was queued just now sequenced at once."""
        self._wake.set()

    def status(self) -> Status:
        """How it stands. Where the store cannot be read just now: the last numbers that were, with the reason.

        Raises TryLater where there are none yet.
        """
        situation = self._situation
        situation = replace(situation, error=situation.error or self._sequencing_error)
        try:
            self._last_status = self._standing.status(situation)
        except TryLater as error:
            if self._last_status is None:
                raise
            return replace(self._last_status, last_error=str(error))
        return self._last_status

    # ---- into the log -----------------------------------------------------------------------------------------------

    def _sequence(self, stop: threading.Event) -> bool:
        """Sequences what waits; whether that went well. Not where the chain knows another history of this log."""
        if self._situation.stopped is not None:
            return False
        try:
            while not stop.is_set() and self._sequencing.sequence_batch():
                pass
        except Exception as error:  # noqa: BLE001 - a loop that must outlive its own mistakes
            self._sequencing_error = _words(error)
            return False
        self._sequencing_error = None
        self._sequenced = True
        return True

    # ---- onto the chain ---------------------------------------------------------------------------------------------

    def _anchor_until(self, stop: threading.Event) -> None:
        """The second thread. It holds the lock until it has really ended."""
        with ExitStack() as held:
            if not self._is_mine(held, stop):
                return
            while not stop.is_set():
                try:
                    self._turn(stop)
                except Exception as error:  # noqa: BLE001 - as above
                    self._failed(error)
                stop.wait(self._tick_s)

    def _is_mine(self, held: ExitStack, stop: threading.Event) -> bool:
        """Waits until this process is the one that anchors; False when the loop is stopped before."""
        while not stop.is_set():
            try:
                held.enter_context(only_one(self._lock))
            except TryLater:
                self._situation = replace(self._situation, doing="another process anchors for this site")
            except ScanSealError as error:
                self._failed(error)
            else:
                return True
            stop.wait(max(self._tick_s, FIRST_RETRY_S))
        return False

    def _turn(self, stop: threading.Event) -> None:
        if time.monotonic() < self._not_before:
            return
        now, has_sequenced = self._clock(), self._sequenced
        pending = self._log.head().size - self._anchors.included_size()
        unsettled = self._anchors.unsettled()
        self._note_waiting(pending, unsettled, now)
        self._began = has_sequenced
        due = self._policy.due_at(pending, self._oldest(now))
        is_due = due is not None and max(due, self._hold_until) <= now
        is_settling = (bool(unsettled) or self._owes) and time.monotonic() >= self._settle_at
        if not is_due and not is_settling and time.monotonic() < self._look_at:
            self._plan(pending, due)
            return
        errors: list[Exception] = []
        view = self._look(stop)
        self._step(errors, lambda anchoring: self._settle(anchoring, view))
        self._step(errors, self._settle_costs)
        if is_due:
            self._step(errors, lambda anchoring: self._anchor(anchoring, view, now))
        if self._let_time_pass is not None and (self._owes or self._anchors.unsettled()):
            self._let_time_pass()
        self._look_at = time.monotonic() + self._look_s
        self._settle_at = time.monotonic() + self._settle_s
        if errors:
            raise errors[0]
        self._failures = 0
        self._situation = replace(self._situation, error=None, unreached_since=None, not_permitted=None)

    def _look(self, stop: threading.Event) -> View:
        if self._anchoring is None:
            anchoring = self._connect(stop)
            self._believe(self._anchors.proven(RECENT))
            self._anchoring = anchoring
        view = self._anchoring.look()
        self._situation = replace(self._situation, stopped=None, revoked=len(view.revoked))
        return view

    def _step(self, errors: list[Exception], step: Callable[[Anchoring], None]) -> None:
        """One that fails does not keep the next from being tried, unless it found what going on would falsify: Stop."""
        if self._anchoring is None:
            raise Stop("a step of anchoring without a chain")
        try:
            step(self._anchoring)
        except Stop:
            raise
        except Exception as error:  # noqa: BLE001 - raised again after the other steps
            errors.append(error)

    def _settle(self, anchoring: Anchoring, view: View) -> None:
        proven = anchoring.settle(view)
        if proven:
            self._believe(proven)

    def _settle_costs(self, anchoring: Anchoring) -> None:
        self._owes = anchoring.settle_payments() > 0
        self._situation = replace(self._situation, market=anchoring.market())

    def _anchor(self, anchoring: Anchoring, view: View, now: float) -> None:
        """Decides on what the chain says now, and anchors if it is time."""
        market = self._situation.market
        if market is None:
            raise TryLater("what anchoring costs is not known yet")
        pending = self._log.head().size - view.anchored_size
        spent = self._payments.spent(day_start(now))
        used = estimated_gas(self._anchors.made(int(now) - FORECAST_DAYS * DAY_S))
        # The sender leaves the same room above an estimate.
        gas = used * 5 // 4 + 10_000
        decision = decide(self._policy, now, pending, self._oldest(now), spent, market.price_wei, gas)
        over = decision.cause == "price"
        self._situation = replace(
            self._situation,
            doing=decision.reason,
            next_anchor_at=decision.until,
            over_ceiling_since=(self._situation.over_ceiling_since or now) if over else None,
            over_budget=decision.reason if decision.cause == "budget" else None,
        )
        # Nothing to do although the store says so: what the chain has is noted by the next settling.
        self._hold_until = decision.until or (0.0 if decision.anchors else now + self._settle_s)
        if not decision.anchors:
            return
        if anchoring.submit(view, int(now), most_wei=decision.most_wei):
            self._waiting_since = now  # what came while it was sent waits since then
            self._owes = True
            self._settle(anchoring, anchoring.look())

    def _oldest(self, now: float) -> float:
        return now if self._waiting_since is None else self._waiting_since

    def _note_waiting(self, pending: int, unsettled: Sequence[AnchorRow], now: float) -> None:
        """Since when the oldest record waits for its anchor. What waits when the loop starts waits since the last anchor."""
        if pending <= 0:
            self._waiting_since = None
        elif self._waiting_since is None:
            lost = [row.sent for row in unsettled if row.state == "sequenced" and row.sent is not None]
            start = now if self._began else float(self._anchors.last_sent() or 0)
            self._waiting_since = min([start, *lost])
        if self._waiting_since is not None:
            self._waiting_since = min(self._waiting_since, now)  # the clock may be set back

    def _plan(self, pending: int, due: float | None) -> None:
        """What happens next, while there is nothing to do yet."""
        if due is None:
            self._hold_until = 0.0
            plan: tuple[str, float | None] = ("every record is anchored", None)
        elif self._hold_until > due:
            plan = (self._situation.doing, self._hold_until)
        else:
            plan = (f"{pending} records wait for the next anchor", due)
        if (self._situation.doing, self._situation.next_anchor_at) != plan:
            self._situation = replace(self._situation, doing=plan[0], next_anchor_at=plan[1])
        if due is None and (self._situation.over_budget or self._situation.over_ceiling_since):
            self._situation = replace(self._situation, over_budget=None, over_ceiling_since=None)

    def _failed(self, error: Exception) -> None:
        first, last = self._retry_s
        self._not_before = time.monotonic() + min(first * 2 ** min(self._failures, 16), last)
        self._failures += 1
        situation = replace(self._situation, error=_words(error))
        if isinstance(error, Stop):
            situation = replace(situation, stopped=str(error))
        elif isinstance(error, NeedPermission | FixInput):
            situation = replace(situation, not_permitted=str(error))
        elif isinstance(error, TryLater):
            situation = replace(situation, unreached_since=situation.unreached_since or self._clock())
        self._situation = situation


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, ScanSealError) else f"internal error ({type(error).__name__}): please report it"
