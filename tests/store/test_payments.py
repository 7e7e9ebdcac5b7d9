"""What was sent is never counted as nothing before a final block says so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ledger.store import open_store
from ledger.store.payments import KEEP_S, PaymentStore

DAY = 86_400
A, B, C = (bytes([number]) * 32 for number in (1, 2, 3))


class Clock:
    now = 100 * DAY

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def payments(database: str, clock: Clock) -> Iterator[PaymentStore]:
    store = open_store(database)
    yield PaymentStore(store, clock)
    store.close()


def test_what_is_under_way_counts_as_the_most_that_it_can_cost(payments: PaymentStore) -> None:
    payments.note(A, 5, 10**30)
    assert payments.spent(100 * DAY) == 10**30
    assert payments.open_nonces() == {5}


def test_of_transactions_with_one_nonce_one_counts(payments: PaymentStore) -> None:
    payments.note(A, 5, 100)
    payments.note(B, 5, 130)
    assert payments.spent(0) == 130
    payments.settle(A, 40, is_final=False)
    assert payments.spent(0) == 40
    payments.settle(A, None, is_final=False)  # a re-org took it
    assert payments.spent(0) == 130
    payments.settle(B, 60, is_final=True)
    payments.settle(A, 0, is_final=True)
    assert payments.spent(0) == 60
    assert payments.open() == []


def test_transactions_with_different_nonces_are_added(payments: PaymentStore) -> None:
    payments.note(A, 5, 100)
    payments.note(B, 6, 100)
    payments.settle(A, 70, is_final=True)
    assert payments.spent(0) == 170
    payments.settle(B, 30, is_final=True)  # refused by the contract, and paid for
    assert payments.spent(0) == 100


def test_a_place_that_another_program_took_costs_nothing(payments: PaymentStore) -> None:
    payments.note(A, 5, 100)
    payments.settle(A, 0, is_final=True)
    assert payments.spent(0) == 0


def test_a_payment_belongs_to_the_day_it_was_last_sent_on(payments: PaymentStore, clock: Clock) -> None:
    payments.note(A, 5, 100)
    clock.now += DAY
    assert payments.spent(101 * DAY) == 0
    payments.note(B, 5, 120)
    payments.settle(A, 50, is_final=False)
    assert payments.spent(101 * DAY) == 50
    payments.note(C, 6, 7)
    assert payments.spent(101 * DAY) == 57


def test_sending_the_same_again_notes_it_once_and_old_payments_go(payments: PaymentStore, clock: Clock) -> None:
    payments.note(A, 5, 100)
    payments.note(A, 5, 100)
    assert len(payments.open()) == 1
    payments.settle(A, 50, is_final=True)
    payments.note(B, 6, 100)
    clock.now += KEEP_S + DAY
    payments.note(C, 7, 100)
    assert payments.spent(0) == 200  # what is not settled stays
