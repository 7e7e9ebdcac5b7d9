"""The picture of where: the image, and beside it the image with the suspicious part in colour."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from detector.overlay import overlay


@pytest.mark.parametrize("shape", [(300, 200), (200, 300, 3), (1500, 3000)])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_only_the_hot_part_of_the_right_picture_is_coloured(shape: tuple[int, ...], depth: type) -> None:
    rng = np.random.default_rng(1)
    image = np.repeat(rng.integers(0, np.iinfo(depth).max, shape[:2])[..., None], 3, axis=2).astype(depth)
    image = image if len(shape) == 3 else image[..., 0]
    heat = np.zeros(shape[:2], np.float32)
    heat[: shape[0] // 2] = 1
    picture = np.asarray(Image.open(io.BytesIO(overlay(image, heat)))).astype(int)
    width = (picture.shape[1] - 8) // 2
    left, right = picture[:, :width], picture[:, -width:]
    assert max(left.shape[:2]) == min(max(shape[:2]), 1024)
    assert (left.max(axis=2) == left.min(axis=2)).all()
    spread = right.max(axis=2) - right.min(axis=2)
    middle = right.shape[0] // 2
    assert spread[: middle - 2].min() > 60
    assert spread[middle + 2 :].max() == 0


def test_a_negative_is_shown_as_a_positive() -> None:
    image = np.tile(np.arange(200, dtype=np.uint16) * 20, (150, 1))
    heat = np.zeros(image.shape, np.float32)
    plain, turned = (
        np.asarray(Image.open(io.BytesIO(overlay(image, heat, inverted=inverted))))[0, :200, 0] for inverted in (False, True)
    )
    assert plain[0] == 0
    assert turned[0] == 255
    assert plain[-1] == 255


def test_a_heat_map_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="heat map"):
        overlay(np.zeros((10, 20), np.uint8), np.zeros((20, 10), np.float32))
