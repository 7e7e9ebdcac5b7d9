"""Tampered radiographs: one place is changed, nothing else, and it is where there is anatomy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from detector.augment import residual
from detector.fakes.tampering import KINDS, NowhereToTamper, tamper


def same(image):
    return image


def blurred(image):
    return ndimage.gaussian_filter(image, 1.5)


def brighter(image):
    return np.clip(image.astype(int) + 12, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_one_place_is_changed_and_nothing_else(kind, chests):
    shares = []
    for number, image in enumerate(chests):
        others = [chests[number - 1]]
        changed, mask = tamper(image, np.random.default_rng(number), remaker=blurred, others=others, kind=kind)
        assert (changed.shape, changed.dtype, mask.dtype) == (image.shape, np.uint8, np.bool_)
        assert ndimage.label(mask)[1] == 1
        diameter = np.sqrt(mask.sum() * 4 / np.pi)
        assert 0.03 * min(image.shape) < diameter < 0.32 * min(image.shape)
        near = ndimage.binary_dilation(mask, iterations=5)
        assert np.array_equal(changed[~near], image[~near])
        assert image[mask].min() > 5
        shares.append((changed[mask] != image[mask]).mean())
    assert np.mean(shares) > 0.4


def test_a_remaker_that_changes_the_brightness_does_not_show(chests):
    for number, image in enumerate(chests * 2):
        image = np.minimum(image, 240)
        changed, mask = tamper(image, np.random.default_rng(number), remaker=brighter, kind="retouched")
        assert np.abs(changed[mask].astype(int) - image[mask]).max() <= 2


def test_what_is_spliced_in_has_the_brightness_of_its_border():
    image, other = (90 + ndimage.gaussian_filter(np.random.default_rng(n).normal(0, 40, (400, 400)), 5) for n in (1, 2))
    seen = []

    def watching(crop):
        seen.append(crop)
        return crop

    others = [(other + 60).astype(np.uint8)]
    changed, _ = tamper(image.astype(np.uint8), np.random.default_rng(1), remaker=watching, others=others, kind="spliced")
    for picture in (seen[0], changed):
        assert ndimage.gaussian_gradient_magnitude(picture.astype(float), 1).max() < 6


def test_a_lesion_put_in_is_brighter_than_what_was_there(chests):
    for number, image in enumerate(chests * 2):
        changed, mask = tamper(image, np.random.default_rng(number), remaker=same, kind="injected")
        risen = ndimage.gaussian_filter(changed.astype(float) - image, 2)[mask]
        assert risen.max() > 2
        assert risen.min() > -3


def test_what_is_taken_out_is_no_longer_there():
    # Bright beads all over a smooth image: a place that has one in it has none afterwards.
    image = 90 + ndimage.gaussian_filter(np.random.default_rng(3).normal(0, 40, (512, 512)), 3)
    rows, columns = np.mgrid[:512, :512]
    scattered = np.random.default_rng(5).integers(-18, 19, (49, 2)).tolist()
    beads = [(70 + 60 * (one // 7) + down, 70 + 60 * (one % 7) + right) for one, (down, right) in enumerate(scattered)]
    for top, left in beads:
        image += 60 * np.exp(-((rows - top) ** 2 + (columns - left) ** 2) / 40)
    image = np.clip(image, 0, 255).astype(np.uint8)
    changes = []
    for seed in range(24):
        changed, mask = tamper(image, np.random.default_rng(seed), remaker=same, kind="removed")
        deep = ndimage.distance_transform_edt(mask)
        changes += [int(changed[bead]) - int(image[bead]) for bead in beads if deep[bead] > 8]
    assert len(changes) > 3
    assert np.median(changes) < -40


def test_what_is_spliced_in_is_the_other_image(chests):
    striped = (chests[1] // 2 + 60 + 8 * (np.arange(chests[1].shape[1]) % 2)).astype(np.uint8)
    changed, mask = tamper(chests[0], np.random.default_rng(2), remaker=same, others=[striped], kind="spliced")
    stripes = np.where(np.arange(mask.shape[1]) % 2, 1.0, -1.0)
    found = [
        abs((residual(picture) * stripes)[ndimage.binary_erosion(mask, iterations=6)].mean())
        for picture in (changed, chests[0])
    ]
    assert found[0] > 1.5 > 0.5 > found[1]
    with pytest.raises(ValueError, match="no other radiograph"):
        tamper(chests[0], np.random.default_rng(2), remaker=same, kind="spliced")


def test_a_smooth_texture_is_sometimes_given_grain(chests):
    kept = []
    for number, image in enumerate(chests * 3):
        changed, mask = tamper(image, np.random.default_rng(number), remaker=blurred, kind="retouched")
        inside = ndimage.binary_erosion(mask, iterations=4)
        kept.append(residual(changed)[inside].std() / residual(image)[inside].std())
    assert min(kept) < 0.45
    assert max(kept) > 0.7


def test_the_remaker_sees_a_small_crop_and_decides_what_changes(chests):
    seen = []

    def watching(crop):
        seen.append(crop.shape)
        return crop

    changed, mask = tamper(chests[0], np.random.default_rng(1), remaker=watching, kind="retouched")
    assert np.array_equal(changed, chests[0])
    assert mask.any()
    assert [side % 16 for side in seen[0]] == [0, 0]
    assert max(seen[0]) < 300
    with pytest.raises(ValueError, match="the re-maker made"):
        tamper(chests[0], np.random.default_rng(1), remaker=lambda crop: crop[1:], kind="retouched")


def test_the_same_numbers_give_the_same(chests):
    first, second = (tamper(chests[0], np.random.default_rng(5), remaker=blurred) for _ in range(2))
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])


def test_an_image_without_anatomy_is_refused():
    for image in (np.zeros((256, 256), np.uint8), np.full((9, 400), 128, np.uint8), np.full((256, 256), 255, np.uint8)):
        with pytest.raises(NowhereToTamper):
            tamper(image, np.random.default_rng(1), remaker=blurred)
