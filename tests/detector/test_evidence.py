"""What the parts measure: of large and small images, of a place that differs, and where the heat map puts it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from detector.evidence import heatmap, measured, size_of


def brightness(pixels):
    """A stand-in for the network: the mean of each 8 x 8 places, in units of ten grey levels."""
    height, width = (side // 8 * 8 for side in pixels.shape)
    return pixels[:height, :width].reshape(height // 8, 8, width // 8, 8).mean((1, 3)).astype(np.float32) / 10


def grain(shape, level=80, seed=1):
    return np.random.default_rng(seed).integers(level, level + 8, shape, np.uint8)


def test_sizes_go_by_the_short_side_of_what_is_inside_the_borders(chests):
    framed = np.zeros((900, 900), np.uint8)
    framed[300:480, 200:700] = grain((180, 500))
    assert size_of(framed) == "small"
    assert size_of(grain((300, 400))) == "medium"
    assert size_of(chests[0]) == "large"


def test_an_image_that_is_too_small_has_no_evidence():
    assert measured(grain((90, 300)), brightness) is None


def test_a_place_that_differs_stands_out_and_is_where_the_heat_is():
    image = grain((320, 400))
    calm = measured(image, brightness)
    image[160:220, 240:300] += 60
    found = measured(image, brightness)
    assert found.region > calm.region + 3
    heat = heatmap(found, image.shape)
    assert (heat.shape, heat.dtype) == (image.shape, np.float32)
    assert heat[170:210, 250:290].min() > heat[20:140, 20:200].max()
    assert heat.min() >= 0
    assert heat.max() <= 1


@pytest.mark.parametrize("scale", [1, 3])
def test_the_heat_is_in_its_place_in_large_images_too(scale):
    image = grain((340, 400), level=0).astype(np.uint8)
    image[100:180, 240:330] += 200
    image = np.asarray(Image.fromarray(image).resize((400 * scale, 340 * scale), Image.Resampling.BICUBIC))

    def sharp(pixels):
        return brightness(pixels) - 10

    heat = heatmap(measured(image, sharp), image.shape)
    rows, columns = np.nonzero(heat > 0.99)
    assert np.median(rows) == pytest.approx(140 * scale, abs=8 * scale)
    assert np.median(columns) == pytest.approx(285 * scale, abs=8 * scale)


def test_of_a_large_image_the_higher_of_tiles_and_whole_counts():
    image = grain((1200, 1300))
    assert measured(image, brightness).traces == pytest.approx(8.3, abs=0.3)

    def only_tiles(pixels):
        return np.full((pixels.shape[0] // 8, pixels.shape[1] // 8), float(pixels.std() > 1.5), np.float32)

    assert measured(image, only_tiles).traces == 1
