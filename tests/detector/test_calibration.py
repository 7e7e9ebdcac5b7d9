"""From evidence to p-values and thresholds: what is promised of real images holds, whichever way they score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from detector.calibrate import calibrate
from detector.calibration import ALARM, Calibration, conformal, upper_bound
from detector.evidence import Evidence
from detector.statistics import NAMES
from detector.trials import Trial

SOURCES, LEVELS = ("nih", "kermany"), ("small", "medium", "large")


def trial(rng, source, size, family=None, *, shift=0.0):
    """Statistics differ by source; fakes score higher in traces and have more of a lattice."""
    numbers = rng.normal(0, 1, len(NAMES)).astype(np.float32) + (source == "kermany") + shift
    if family:
        numbers[0] += 2
    traces = float(rng.normal(2.5 if family else -2.5, 1.5))
    evidence = Evidence(size, traces, float(rng.normal(2 + bool(family), 0.5)), numbers, (), ())
    return Trial(source, None, family, family and f"{family}-1", "full", evidence)


@pytest.fixture(scope="module")
def trials():
    rng = np.random.default_rng(1)
    sets = []
    for _ in range(2):
        reals = [trial(rng, source, size) for source in SOURCES for size in LEVELS for _ in range(150)]
        fakes = [
            trial(rng, source, size, family)
            for family in ("gan", "autoencoder")
            for source in SOURCES
            for size in LEVELS
            for _ in range(20)
        ]
        sets.append(reals + fakes)
    return sets


@pytest.fixture(scope="module")
def calibration(trials):
    return calibrate(*trials, version="1", network_sha256="ab" * 32)


def test_real_images_are_called_synthetic_as_rarely_as_promised(calibration):
    rng = np.random.default_rng(2)
    for source in SOURCES:
        fresh = [trial(rng, source, size).evidence for size in LEVELS for _ in range(400)]
        alarms = sum(calibration.p_value("combined", calibration.combined(one), one.size) <= ALARM for one in fresh)
        assert stats.binomtest(alarms, len(fresh), ALARM, alternative="greater").pvalue > 0.01


def test_fakes_are_found_and_all_parts_help(calibration):
    rng = np.random.default_rng(3)
    fakes = [trial(rng, "nih", "large", "gan").evidence for _ in range(300)]
    found = [calibration.p_value("combined", calibration.combined(one), one.size) <= ALARM for one in fakes]
    assert np.mean(found) > 0.6
    assert min(calibration.weights[:3]) > 0


def test_probabilities_are_calibrated_where_both_are_equally_common(calibration):
    rng = np.random.default_rng(4)
    scores, labels = [], []
    for _ in range(1000):
        for family in (None, "gan"):
            scores.append(calibration.combined(trial(rng, "nih", "medium", family).evidence))
            labels.append(family is not None)
    odds, labels = 1 / (1 + np.exp(-np.array(scores))), np.array(labels)
    for low, high in ((0.02, 0.2), (0.3, 0.7), (0.8, 0.98)):
        inside = (odds > low) & (odds < high)
        assert labels[inside].mean() == pytest.approx(odds[inside].mean(), abs=0.12)


def test_what_is_unlike_every_group_is_strange_whichever_way(calibration):
    rng = np.random.default_rng(5)
    usual = [calibration.strangeness(trial(rng, "nih", "large").evidence) for _ in range(200)]
    assert np.median(usual) > 0.3
    for shift in (6.0, -6.0):
        assert max(calibration.strangeness(trial(rng, "nih", "large", shift=shift).evidence) for _ in range(20)) < 0.02


def test_a_size_is_compared_with_itself_alone(calibration):
    groups = tuple(
        replace(group, traces=tuple(value + 50 for value in group.traces)) if group.size == "small" else group
        for group in calibration.groups
    )
    moved = replace(calibration, groups=groups)
    assert moved.p_value("traces", 5.0, "large") == calibration.p_value("traces", 5.0, "large") < 0.05
    assert moved.p_value("traces", 5.0, "small") == 1


def test_it_is_kept_and_read_again(calibration, tmp_path):
    file = tmp_path / "calibration.json"
    calibration.save(file)
    assert Calibration.load(file) == calibration
    for text in ("", "{}", "[]", file.read_text().replace('"groups"', '"group"'), file.read_text()[:-50]):
        file.write_text(text)
        with pytest.raises(ValueError, match="no calibration"):
            Calibration.load(file)


def test_too_few_real_images_are_refused(trials):
    few = [one for one in trials[1] if one.family or one.source == "kermany" or one.evidence.size != "small"]
    with pytest.raises(ValueError, match="0 held-out"):
        calibrate(trials[0], [*few, trial(np.random.default_rng(1), "nih", "large")], version="1", network_sha256="")


def test_conformal_p_values_count_the_image_itself():
    real = (1.0, 2.0, 3.0, 4.0)
    assert [conformal(real, value) for value in (0.0, 2.0, 4.5)] == [1.0, 0.8, 0.2]


def test_no_alarm_in_299_real_images_bounds_the_rate_at_one_percent():
    assert upper_bound(0, 299) == pytest.approx(0.00997, abs=1e-4)
    assert upper_bound(0, 298) > 0.01
    assert upper_bound(5, 5) == 1
