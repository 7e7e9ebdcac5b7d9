"""How a site's anchoring stands: numbers for people and monitors, and alarms that say what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from ledger.log import Log
from ledger.log.anchoring import AnchorRow, Market
from ledger.log.schedule import DAY_S, USUAL_GAS, Forecast, Policy, day_start, ether, forecast, gwei
from ledger.log.sequencing import Queue
from ledger.store.anchors import AnchorStore
from ledger.store.payments import PaymentStore

LOW_DAYS: Final = 7
"""An account that lasts for fewer days is an alarm."""
PATIENCE_S: Final = 600
"""A chain that is out of reach, or too dear, for longer than this is an alarm."""
FORECAST_DAYS: Final = 2
"""Days whose anchors a forecast is made of."""

Word = Literal[
    "budget used up",
    "price over the ceiling",
    "balance low",
    "key revoked",
    "old copy restored",
    "chain out of reach",
    "not permitted",
    "key held",
    "log disagrees",
    "node out of reach",
    "records left out",
]


@dataclass(frozen=True)
class Alarm:
    """`word` names the kind (docs/anchoring.md says what to do), `detail` the case."""

    word: Word
    detail: str

    def __str__(self) -> str:
        return f"{self.word}: {self.detail}"


@dataclass(frozen=True)
class Status:
    """How a site's anchoring stands. Times are seconds since 1970; sizes count the log's records.

    `queued` records wait to be sequenced; `log_size` are sequenced, of these `anchored_size` in a block and `final_size` final.
    `doing` says in words what happens next, `last_error` what does not work now; None: all does. `node`: who keeps the log and
    pays for its anchors, None where the site does; what a node has anchored counts when it is final.
    """

    queued: int
    log_size: int
    anchored_size: int
    final_size: int
    last_anchor_at: int | None
    spent_today_wei: int
    forecast: Forecast
    doing: str
    last_error: str | None
    alarms: tuple[Alarm, ...]
    node: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Situation:
    """What only the running loop knows, or a look at the chain tells: since when a price or an error holds, what was seen."""

    doing: str = "nothing yet"
    next_anchor_at: float | None = None
    market: Market | None = None
    revoked: int = 0
    over_ceiling_since: float | None = None
    over_budget: str | None = None
    unreached_since: float | None = None
    stopped: str | None = None
    not_permitted: str | None = None
    error: str | None = None


class Standing:
    """Reads a site's store for its status. `clock` gives seconds since 1970."""

    def __init__(
        self,
        log: Log,
        queue: Queue,
        anchors: AnchorStore,
        payments: PaymentStore,
        policy: Policy,
        clock: Callable[[], float],
    ) -> None:
        self._log, self._queue, self._anchors, self._payments = log, queue, anchors, payments
        self._policy, self._clock = policy, clock

    def log_size(self) -> int:
        return self._log.head().size

    def final_size(self) -> int:
        return self._anchors.final_size()

    def anchors_above(self, size: int) -> list[AnchorRow]:
        return self._anchors.rows(size)

    def status(self, situation: Situation) -> Status:
        """Raises TryLater where the store cannot be read."""
        now, market = self._clock(), situation.market
        size, included = self._log.head().size, self._anchors.included_size()
        made = self._anchors.made(int(now) - FORECAST_DAYS * DAY_S)
        price, balance = (None, None) if market is None else (market.price_wei, market.balance_wei)
        ahead = forecast(self._policy, now, made, max(0, size - included), situation.next_anchor_at, price, balance)
        return Status(
            self._queue.depth(),
            size,
            included,
            self._anchors.final_size(),
            self._anchors.last_sent(),
            self._payments.spent(day_start(now)),
            ahead,
            situation.doing,
            situation.error,
            tuple(_alarms(situation, ahead, self._policy, now)),
        )


def _alarms(situation: Situation, ahead: Forecast, policy: Policy, now: float) -> list[Alarm]:
    found = []
    if situation.stopped is not None:
        found.append(Alarm("old copy restored", situation.stopped))
    if situation.not_permitted is not None:
        found.append(Alarm("not permitted", situation.not_permitted))
    if situation.over_budget is not None:
        found.append(Alarm("budget used up", situation.over_budget))
    if situation.over_ceiling_since is not None and now - situation.over_ceiling_since >= PATIENCE_S:
        minutes, ceiling = int(now - situation.over_ceiling_since) // 60, gwei(policy.ceiling_wei)
        found.append(Alarm("price over the ceiling", f"for {minutes} min a unit of gas has cost more than {ceiling} gwei"))
    if ahead.days_left is not None and ahead.days_left < LOW_DAYS and situation.market is not None:
        has = ether(situation.market.balance_wei)
        found.append(Alarm("balance low", f"the account has {has}, enough for {ahead.days_left:.1f} days"))
    elif situation.market is not None and situation.market.balance_wei < situation.market.price_wei * USUAL_GAS:
        has = ether(situation.market.balance_wei)
        found.append(Alarm("balance low", f"the account has {has}, less than an anchor costs"))
    if situation.revoked:
        found.append(Alarm("key revoked", f"{situation.revoked} of the keys that signed what waits are revoked on chain"))
    if situation.unreached_since is not None and now - situation.unreached_since >= PATIENCE_S:
        minutes = int(now - situation.unreached_since) // 60
        found.append(Alarm("chain out of reach", f"for {minutes} min: {situation.error or 'no answer'}"))
    return found
