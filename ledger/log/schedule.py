"""When to anchor, and what that will cost: a site's policy applied to what waits, what was spent and what the chain asks.

Pure: times are seconds since 1970 and given, prices are wei for a unit of gas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

DAY_S: Final = 86_400
GWEI: Final = 10**9
ETHER: Final = 10**18
USUAL_GAS: Final = 80_000
"""Of an anchor, before this log has made any (docs/performance.md: 55,623 and a first one somewhat more)."""
LEAST_SPAN_S: Final = 3600
"""The shortest time that a rate is taken from: the first minutes of a site tell little about its days."""
LOOK_AGAIN_S: Final = 15
"""A price that is too high is asked for again after this, a little more than one block of a public chain."""

Cause = Literal["due", "nothing to do", "not due", "price", "budget"]


@dataclass(frozen=True)
class Policy:
    """How often to anchor and what for. `interval_s`: how long the oldest record waits at most; `batch`: how many records
    that wait are anchored at once; `ceiling_wei`: the most for a unit of gas; `budget_wei`: the most in one UTC day, None for
    no limit."""

    interval_s: int = 60
    batch: int = 10_000
    ceiling_wei: int = 200 * GWEI
    budget_wei: int | None = None

    def due_at(self, pending: int, oldest_waiting_since: float) -> float | None:
        """From when on what waits is to be anchored; None while nothing waits."""
        if pending <= 0:
            return None
        return oldest_waiting_since if pending >= self.batch else oldest_waiting_since + self.interval_s


@dataclass(frozen=True)
class Decision:
    """Anchor now, or wait until `until` (None: until a record comes). `most_wei` is what this anchor may cost, None for no
    limit."""

    cause: Cause
    reason: str
    until: float | None = None
    most_wei: int | None = None

    @property
    def anchors(self) -> bool:
        return self.cause == "due"


def decide(
    policy: Policy,
    now: float,
    pending: int,
    oldest_waiting_since: float,
    spent_today: int,
    price_now: int,
    estimated_gas: int,
) -> Decision:
    """Whether to anchor `pending` records now. `spent_today` is wei since `day_start(now)`, what is not known counted as the
    most that it can be; `estimated_gas` is what the transaction may use."""
    due = policy.due_at(pending, oldest_waiting_since)
    if due is None:
        return Decision("nothing to do", "every record is anchored")
    if now < due:
        return Decision("not due", f"{pending} records wait for the next anchor", due)
    if price_now > policy.ceiling_wei:
        reason = f"a unit of gas costs {gwei(price_now)} gwei, the ceiling is {gwei(policy.ceiling_wei)}"
        return Decision("price", reason, now + LOOK_AGAIN_S)
    if policy.budget_wei is None:
        return Decision("due", f"{pending} records are due")
    left, cost = policy.budget_wei - spent_today, price_now * estimated_gas
    if cost > policy.budget_wei:
        reason = f"an anchor costs {ether(cost)} now, the budget of a whole day is {ether(policy.budget_wei)}"
        return Decision("budget", reason, now + LOOK_AGAIN_S)
    if cost > left:
        reason = f"of today's budget {ether(max(left, 0))} are left, an anchor costs {ether(cost)} now"
        # A lower price may fit into what is left before the day ends.
        tomorrow = day_start(now) + DAY_S
        return Decision("budget", reason, min(tomorrow, now + LOOK_AGAIN_S) if left > 0 else tomorrow)
    return Decision("due", f"{pending} records are due", most_wei=left)


@dataclass(frozen=True)
class Anchored:
    """An anchor that was made: when it was sent, how many records it has, and its cost (None: not known)."""

    sent: int
    records: int
    gas: int | None
    fee_wei: int | None


@dataclass(frozen=True)
class Forecast:
    """What anchoring will cost a day if records go on coming as they do. None: not known, or no end in sight.

    `wei_per_day` is not cut by the budget: `over_budget` says that the budget will not do.
    """

    records_per_day: float
    anchors_per_day: float
    gas_per_day: int
    wei_per_day: int | None
    over_budget: bool
    days_left: float | None
    next_anchor_at: float | None


def forecast(
    policy: Policy,
    now: float,
    anchors: Sequence[Anchored],
    pending: int,
    next_anchor_at: float | None,
    price_now: int | None,
    balance_wei: int | None,
) -> Forecast:
    """From the anchors of the last days (`anchors`, in any order) and what waits now.

    Records are taken to come evenly at the rate of the last 24 hours, so bursts with quiet hours between cost less than said.
    Without a price of now the median price that was paid counts.
    """
    recent = [one for one in anchors if one.sent > now - DAY_S]
    first = min((one.sent for one in recent), default=now)
    span_s = min(max(now - first, LEAST_SPAN_S), DAY_S)
    rate = (sum(one.records for one in recent) + pending) / span_s
    per_day = 0.0
    if rate > 0:
        # The first record after an anchor comes after 1/rate, and waits for the interval or for the batch.
        per_day = DAY_S / (1 / rate + min(policy.interval_s, (policy.batch - 1) / rate))
    gas = int(per_day * estimated_gas(anchors))
    price = price_now if price_now is not None else _price_paid(anchors)
    wei = None if price is None else gas * price
    days = balance_wei / wei if wei and balance_wei is not None else None
    over = wei is not None and policy.budget_wei is not None and wei > policy.budget_wei
    return Forecast(rate * DAY_S, per_day, gas, wei, over, days, next_anchor_at)


def estimated_gas(anchors: Sequence[Anchored]) -> int:
    """What an anchor uses, by those that were made."""
    used = [one.gas for one in anchors if one.gas]
    return _median(used) if used else USUAL_GAS


def day_start(now: float) -> int:
    """Midnight UTC at the start of this day."""
    return int(now) // DAY_S * DAY_S


def gwei(wei: int) -> str:
    return f"{wei / GWEI:.6g}"


def ether(wei: int) -> str:
    """An amount of the chain's coin, to 6 digits."""
    return f"{wei / ETHER:.6g} coins"


def _price_paid(anchors: Sequence[Anchored]) -> int | None:
    paid = [one.fee_wei // one.gas for one in anchors if one.gas and one.fee_wei is not None]
    return _median(paid) if paid else None


def _median(values: Sequence[int]) -> int:
    return sorted(values)[len(values) // 2]
