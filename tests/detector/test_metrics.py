"""Figures against their definitions, counted out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.metrics import auc, bootstrapped, calibration_error, hit_rate, iou, rate, risk_at


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_auc_is_the_share_of_pairs_in_order(rows):
    scores, labels = np.array([float(score) for score, _ in rows]), np.array([label for _, label in rows])
    pairs = [(fake > real) + 0.5 * (fake == real) for fake in scores[labels] for real in scores[~labels]]
    if pairs:
        assert auc(scores, labels) == pytest.approx(np.mean(pairs))
    else:
        assert np.isnan(auc(scores, labels))


def test_hits_are_counted_above_the_share_of_real_images():
    scores = np.array([*range(100), 97.5, 98.5, 99.5, 1.0], float)
    labels = np.array([False] * 100 + [True] * 4)
    assert hit_rate(scores, labels, 0.01) == 0.5
    assert hit_rate(scores, labels, 0.0) == 0.25
    assert (scores[~labels] > 98).mean() == 0.01


def test_a_detector_that_always_says_real_hits_nothing():
    scores, labels = np.zeros(40), np.arange(40) < 20
    assert hit_rate(scores, labels, 0.05) == 0
    assert auc(scores, labels) == 0.5


def test_calibration_error_is_none_for_honest_probabilities_and_large_for_bold_ones():
    labels = np.arange(1000) % 10 < 7
    assert calibration_error(np.full(1000, 0.7), labels) == pytest.approx(0)
    assert calibration_error(np.full(1000, 1.0), labels) == pytest.approx(0.3)


def test_risk_falls_with_coverage_where_the_sure_answers_are_right():
    probabilities = np.array([0.99, 0.01, 0.45, 0.55])
    labels = np.array([True, False, True, False])
    assert [risk_at(share, probabilities, labels) for share in (0.5, 1.0)] == [0, 0.5]


def test_overlap():
    first, second = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert np.isnan(iou(first, second))
    first[:2], second[1:3] = True, True
    assert iou(first, second) == pytest.approx(1 / 3)


def test_intervals_of_shares_are_the_exact_ones():
    assert rate(0, 299).high == pytest.approx(1 - 0.025 ** (1 / 299))
    assert rate(5, 5).low == pytest.approx(0.025 ** (1 / 5))
    assert rate(3, 10).low < 0.3 < rate(3, 10).high
    assert np.isnan(rate(0, 0).value)


def test_images_of_a_patient_are_drawn_together():
    rng = np.random.default_rng(1)
    scores, labels = rng.normal(size=60), np.arange(60) % 2 == 0
    scores[labels] += 1
    alone = bootstrapped(auc, scores, labels, [str(number) for number in range(60)])
    together = bootstrapped(auc, np.tile(scores, 8), np.tile(labels, 8), [str(number) for number in range(60)] * 8)
    apart = bootstrapped(auc, np.tile(scores, 8), np.tile(labels, 8), [str(number) for number in range(480)])
    assert alone.low < alone.value < alone.high
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.2)
    assert apart.high - apart.low < 0.6 * (alone.high - alone.low)
