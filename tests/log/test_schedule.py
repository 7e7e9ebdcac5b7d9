"""When to anchor and what it costs: promises of the policy, for any numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ledger.log.schedule import DAY_S, ETHER, GWEI, Anchored, Policy, day_start, decide, estimated_gas, forecast

NOON = 20_000 * DAY_S + DAY_S // 2
GAS = 60_000

policies = st.builds(
    Policy,
    interval_s=st.integers(0, 10_000),
    batch=st.integers(1, 20_000),
    ceiling_wei=st.integers(1, 500 * GWEI),
    budget_wei=st.none() | st.integers(1, ETHER),
)


@given(
    policy=policies,
    now=st.integers(0, 2**33),
    pending=st.integers(0, 50_000),
    waited=st.integers(0, 20_000),
    spent=st.integers(0, ETHER),
    price=st.integers(0, 600 * GWEI),
)
def test_it_anchors_only_what_is_due_and_may_be_paid(
    policy: Policy, now: int, pending: int, waited: int, spent: int, price: int
) -> None:
    decision = decide(policy, now, pending, now - waited, spent, price, GAS)
    is_due = pending > 0 and (pending >= policy.batch or waited >= policy.interval_s)
    is_payable = price <= policy.ceiling_wei and (policy.budget_wei is None or spent + price * GAS <= policy.budget_wei)
    assert decision.anchors == (is_due and is_payable)
    if decision.anchors and policy.budget_wei is not None:
        assert decision.most_wei is not None
        assert spent + decision.most_wei == policy.budget_wei
    if not decision.anchors and pending:
        assert decision.until is not None
        assert decision.until > now
    assert decision.reason


def test_it_says_why_it_waits_and_until_when() -> None:
    policy = Policy(interval_s=60, batch=100, ceiling_wei=50 * GWEI, budget_wei=ETHER // 100)
    assert decide(policy, NOON, 0, NOON, 0, GWEI, GAS).until is None
    young = decide(policy, NOON, 99, NOON - 59, 0, GWEI, GAS)
    assert (young.cause, young.until) == ("not due", NOON + 1)
    assert decide(policy, NOON, 100, NOON, 0, GWEI, GAS).cause == "due"
    dear = decide(policy, NOON, 1, NOON - 60, 0, 51 * GWEI, GAS)
    assert dear.cause == "price"
    assert dear.reason == "a unit of gas costs 51 gwei, the ceiling is 50"
    spent = decide(policy, NOON, 1, NOON - 60, ETHER // 100, GWEI, GAS)
    assert (spent.cause, spent.until) == ("budget", day_start(NOON) + DAY_S)
    assert spent.reason == "of today's budget 0 coins are left, an anchor costs 6e-05 coins now"
    almost = decide(policy, NOON, 1, NOON - 60, ETHER // 100 - 1, GWEI, GAS)
    assert almost.cause == "budget"
    assert almost.until is not None
    assert almost.until < NOON + 60  # a lower price may fit
    whole = decide(Policy(budget_wei=1), NOON, 1, NOON - 60, 0, GWEI, GAS)
    assert "the budget of a whole day is 1e-18" in whole.reason


def test_the_next_utc_day_has_a_new_budget() -> None:
    midnight = day_start(NOON) + DAY_S
    assert day_start(midnight - 1) == day_start(NOON)
    assert day_start(midnight) == midnight


def test_a_forecast_counts_anchors_by_interval_or_by_batch() -> None:
    made = [Anchored(NOON - DAY_S + 3600 * hour + 1, 100, 60_000, 60_000 * GWEI) for hour in range(24)]
    ahead = forecast(Policy(interval_s=60), NOON, made, 0, None, 2 * GWEI, ETHER)
    assert round(ahead.records_per_day) == 2400
    assert 890 < ahead.anchors_per_day < 910  # every 36 s a record, so 36 + 60 s from anchor to anchor
    assert ahead.gas_per_day == int(ahead.anchors_per_day * 60_000)
    assert ahead.wei_per_day == ahead.gas_per_day * 2 * GWEI
    assert ahead.days_left == ETHER / ahead.wei_per_day
    full = forecast(Policy(interval_s=10**6, batch=24), NOON, made, 0, None, GWEI, None)
    assert 99 < full.anchors_per_day < 101
    assert full.days_left is None


def test_a_forecast_knows_what_it_does_not_know() -> None:
    nothing = forecast(Policy(), NOON, [], 0, None, None, None)
    assert (nothing.anchors_per_day, nothing.wei_per_day, nothing.days_left) == (0, None, None)
    idle = forecast(Policy(), NOON, [], 0, None, GWEI, ETHER)
    assert (idle.wei_per_day, idle.days_left) == (0, None)
    paid = [Anchored(NOON - 10, 5, 50_000, 50_000 * 3), Anchored(NOON - 9, 5, None, None)]
    assert forecast(Policy(), NOON, paid, 0, None, None, None).wei_per_day == (
        3 * forecast(Policy(), NOON, paid, 0, None, None, None).gas_per_day
    )
    assert forecast(Policy(budget_wei=1), NOON, paid, 0, None, None, None).over_budget
    assert estimated_gas([]) > estimated_gas(paid) == 50_000
