"""The detector in use, with a network of its own making: words, reasons, and what it refuses."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from detector.calibration import Calibration, Group
from detector.evidence import SIZES
from detector.inference import CALIBRATION, NETWORK, WEIGHTS, Detector, WeightsDiffer
from detector.network import Network, Shape
from detector.preprocess import views
from detector.statistics import NAMES, statistics
from detector.train import export

EVEN = tuple(float(value) for value in np.linspace(-1, 1, 199))
PARTS = ("network", "region", "statistics", "one-class")


@pytest.fixture(scope="module")
def weights(tmp_path_factory, chests):
    """A folder with an untrained network, and a calibration to which every image is usual."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(1)
    digest = export(Network(Shape((4, 8, 8, 8), (1, 1, 1))).eval(), folder / NETWORK)
    numbers = np.stack([statistics(image) for image in chests])
    usual = tuple(float(value) for value in numbers.mean(0))
    flat = tuple(tuple(1e-6 * (row == column) for column in range(len(NAMES))) for row in range(len(NAMES)))
    lists = dict.fromkeys(("traces", "region", "textures", "combined", "distances"), EVEN)
    groups = tuple(Group(source="nih", size=size, middle=usual, inverse=flat, **lists) for _, size in SIZES)
    none = (0.0,) * (2 * len(NAMES) + 1)
    Calibration("7", digest, usual, (1.0,) * len(NAMES), none, (0.0, 0.0, 0.0, 0.0), groups).save(folder / CALIBRATION)
    shutil.copyfile(WEIGHTS / "scope.npz", folder / "scope.npz")
    return folder


def changed(kept, tmp_path, **changes):
    """A detector with the same weights and another calibration."""
    folder = tmp_path / "changed"
    shutil.copytree(kept, folder)
    replace(Calibration.load(kept / CALIBRATION), **changes).save(folder / CALIBRATION)
    return Detector.load(folder, threads=1)


def scored(score):
    return (0.0, 0.0, 0.0, score)


@pytest.mark.parametrize(("score", "word"), [(-3.0, "NO_SIGN_OF_SYNTHESIS"), (0.97, "INCONCLUSIVE"), (3.0, "LIKELY_SYNTHETIC")])
def test_the_word_goes_by_how_many_real_images_score_as_high(weights, tmp_path, chests, score, word):
    given = changed(weights, tmp_path, weights=scored(score)).assess(chests[0])
    assert given.word == word
    assert given.synthetic_probability == pytest.approx(1 / (1 + np.exp(-score)))
    assert given.false_positive_rate == 0.01
    assert given.heatmap.shape == chests[0].shape
    assert {reason.part for reason in given.reasons} >= set(PARTS)
    assert all(0 < reason.p_value <= 1 for reason in given.reasons if reason.part in PARTS)
    assert (given.model.name, given.model.version) == ("scanseal-detector", "7")
    assert given.model.sha256 == hashlib.sha256((weights / NETWORK).read_bytes()).hexdigest()


def test_what_is_unlike_all_real_images_is_not_judged(weights, tmp_path, chests):
    groups = tuple(
        replace(
            group,
            middle=tuple(value + 9 for value in group.middle),
            inverse=tuple(tuple(1e6 * one for one in row) for row in group.inverse),
        )
        for group in Calibration.load(weights / CALIBRATION).groups
    )
    given = changed(weights, tmp_path, weights=scored(3.0), groups=groups).assess(chests[0])
    assert given.word == "INCONCLUSIVE"
    assert given.reasons[0].part == "one-class"


def test_a_finding_that_a_little_compression_takes_away_is_none(weights, tmp_path, chests):
    image = chests[4]
    (view,) = views(image)
    middle, spread = tuple(float(value) for value in statistics(view.pixels)), (1.0,) * len(NAMES)
    # A score that is high for these very statistics alone: any change takes it away.
    squares = tuple([0.0] * len(NAMES) + [-50.0] * len(NAMES) + [-50.0 * len(NAMES) + 2])
    detector = changed(weights, tmp_path, middle=middle, spread=spread, texture_weights=squares, weights=(0.0, 0.0, 1.0, 0.0))
    given = detector.assess(image)
    assert given.word == "INCONCLUSIVE"
    assert given.reasons[0].part == "stability"


def test_stored_values_of_many_bits_and_inverted_ones_are_seen_as_the_same_picture(weights, chests):
    detector = Detector.load(weights, threads=1)
    image = chests[1]
    deep = image.astype(np.uint16) * 16 + 100
    plain, inverted = detector.assess(deep, bits=12), detector.assess(4200 - deep, bits=12, inverted=True)
    assert plain.synthetic_probability == pytest.approx(inverted.synthetic_probability, abs=0.02)
    colour = detector.assess(np.repeat(image[..., None], 3, axis=2))
    assert colour.synthetic_probability == detector.assess(image).synthetic_probability


def test_what_is_no_radiograph_is_out_of_scope_and_what_is_no_picture_an_error(weights):
    detector = Detector.load(weights, threads=1)
    rng = np.random.default_rng(1)
    for pixels in (
        np.zeros((300, 300), np.uint8),
        rng.integers(0, 256, (60, 60), np.uint8),
        rng.integers(0, 256, (300, 300), np.uint8),
    ):
        given = detector.assess(pixels)
        assert given.word == "OUT_OF_SCOPE"
        assert given.synthetic_probability is None
        assert given.reasons[0].part == "scope"
    for wrong in (np.zeros((3, 4, 5, 6)), np.zeros((0, 5)), np.full((200, 200), np.nan)):
        with pytest.raises(ValueError):
            detector.assess(wrong)


def test_weights_that_do_not_belong_together_are_refused(weights, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(weights, folder)
    (folder / NETWORK).write_bytes((folder / NETWORK).read_bytes() + b"\0")
    with pytest.raises(WeightsDiffer, match="not the network"):
        Detector.load(folder)
    (folder / NETWORK).unlink()
    with pytest.raises(FileNotFoundError):
        Detector.load(folder)
