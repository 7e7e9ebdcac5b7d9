"""What happens to both classes happens to them alike, and does what its name says."""

from __future__ import annotations

import numpy as np
import pytest

from detector.augment import as_sharp, grainier, recoded, residual, route, scaled, sharpness, smoother


def test_a_route_is_the_same_for_whatever_goes_along_it(chests):
    for seed in range(30):
        step = route(np.random.default_rng(seed))
        first, again, other = step(chests[0]), step(chests[0]), step(chests[0].copy())
        assert np.array_equal(first, again)
        assert np.array_equal(first, other)
        assert first.dtype == np.uint8


def test_routes_differ(chests):
    ways = {route(np.random.default_rng(seed))(chests[0][:200, :200]).tobytes() for seed in range(20)}
    assert len(ways) > 12


def test_smoother_has_less_grain_and_grainier_more(chests):
    for seed in range(12):
        rng = np.random.default_rng(seed)
        image, other = chests[seed % 3][:300, :300], chests[3][:300, :300]
        grain = np.abs(residual(image)).mean()
        assert np.abs(residual(smoother(image, rng))).mean() < grain
        assert np.abs(residual(grainier(image, other, rng))).mean() > grain * 1.02


@pytest.mark.parametrize(("kind", "worse", "better"), [("JPEG", 60, 95), ("WEBP", 60, 95), ("JPEG2000", 38, 50)])
def test_codecs_lose_what_their_quality_says(chests, kind, worse, better):
    errors = [np.abs(recoded(chests[0], kind, quality).astype(float) - chests[0]).mean() for quality in (worse, better)]
    assert errors[0] > errors[1] > 0


def test_scaling_gives_the_size(chests):
    assert scaled(chests[0][:100, :200], 0.5).shape == (50, 100)


def test_two_images_are_made_equally_sharp(chests):
    sharp, soft, other = (
        chests[0][100:300, 100:300],
        scaled(scaled(chests[1][100:300, 100:300], 0.5), 2),
        chests[3][100:300, 100:300],
    )
    assert sharpness(sharp) > 2 * sharpness(soft)
    assert sharpness(as_sharp(soft, sharpness(sharp), other)) == pytest.approx(sharpness(sharp), rel=0.6)
    assert sharpness(as_sharp(sharp, sharpness(soft), other)) == pytest.approx(sharpness(soft), rel=0.6)
