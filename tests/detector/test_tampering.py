"""Tampered radiographs: one place is changed, nothing else, and it is where there is anatomy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from detector.fakes.tampering import NowhereToTamper, tamper


def blurred(image):
    return ndimage.gaussian_filter(image, 1.5)


def brighter(image):
    return np.clip(image.astype(int) + 12, 0, 255).astype(np.uint8)


def test_one_place_is_changed_and_nothing_else(chests):
    for number, image in enumerate(chests * 3):
        changed, mask = tamper(image, np.random.default_rng(number), remaker=blurred)
        assert (changed.shape, changed.dtype, mask.dtype) == (image.shape, np.uint8, np.bool_)
        assert ndimage.label(mask)[1] == 1
        diameter = np.sqrt(mask.sum() * 4 / np.pi)
        assert 0.03 * min(image.shape) < diameter < 0.3 * min(image.shape)
        near = ndimage.binary_dilation(mask, iterations=20)
        assert np.array_equal(changed[~near], image[~near])
        assert (changed[mask] != image[mask]).mean() > 0.3


def test_the_border_is_not_seen(chests):
    for number, image in enumerate(chests):
        changed, mask = tamper(image, np.random.default_rng(number), remaker=brighter)
        edge = ndimage.binary_dilation(mask, iterations=2) & ~ndimage.binary_erosion(mask, iterations=2)
        steps = [ndimage.gaussian_gradient_magnitude(picture.astype(float), 1)[edge].mean() for picture in (changed, image)]
        assert steps[0] < steps[1] + 3


def test_the_same_numbers_give_the_same(chests):
    first, second = (tamper(chests[0], np.random.default_rng(5), remaker=blurred) for _ in range(2))
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])


def test_an_image_without_anatomy_is_refused():
    with pytest.raises(NowhereToTamper):
        tamper(np.zeros((256, 256), np.uint8), np.random.default_rng(1), remaker=blurred)
    with pytest.raises(NowhereToTamper):
        tamper(np.full((9, 400), 128, np.uint8), np.random.default_rng(1), remaker=blurred)
