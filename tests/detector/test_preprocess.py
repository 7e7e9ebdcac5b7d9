"""One way from pixels to what the detector sees, whatever the file had."""

from __future__ import annotations

import numpy as np
import pytest

from detector.preprocess import SHORT, TILE, NoPicture, grey, interior, reduced, views


def test_eight_bits_stay_as_they_are(chests):
    assert np.array_equal(grey(chests[0]), chests[0])


def test_a_grey_picture_stored_in_colour_is_the_same_picture(chests):
    colour = np.stack([chests[0]] * 3, 2)
    assert np.array_equal(grey(colour), chests[0])
    opaque = np.concatenate([colour, np.full((*chests[0].shape, 1), 255, np.uint8)], 2)
    assert np.array_equal(grey(opaque), chests[0])


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_more_bits_of_the_same_picture_give_nearly_the_same_levels(chests, bits):
    eight = chests[0].astype(np.uint16)
    stretched = grey(chests[0].astype(np.float32))
    deep = grey(eight << (bits - 8), bits=bits)
    assert np.abs(deep.astype(int) - stretched).max() <= 1


def test_monochrome1_is_the_same_picture(chests):
    assert np.array_equal(grey(255 - chests[0], inverted=True), chests[0])
    deep = chests[0].astype(np.uint16) * 16
    difference = grey(4095 - deep, inverted=True, bits=12).astype(int) - grey(deep, bits=12)
    assert np.abs(difference).max() <= 2


def test_padding_is_no_part_of_the_picture(chests):
    padded = np.pad(chests[0], ((40, 0), (7, 100)))
    rows, columns = interior(padded)
    plain_rows, plain_columns = interior(chests[0])
    assert np.array_equal(padded[rows, columns], chests[0][plain_rows, plain_columns])


def test_a_large_image_is_seen_whole_and_in_tiles(chests):
    large = reduced(chests[0], 1300)
    whole, *tiles = views(large)
    assert min(whole.pixels.shape) == SHORT
    assert tiles
    for tile in tiles:
        assert tile.pixels.shape == (TILE, TILE)
        assert np.array_equal(tile.pixels, large[tile.top : tile.top + TILE, tile.left : tile.left + TILE])


def test_a_small_image_is_seen_as_it_is(chests):
    (view,) = views(chests[0])
    rows, columns = interior(chests[0])
    assert np.array_equal(view.pixels, chests[0][rows, columns])
    assert views(reduced(chests[0], 90)) == []


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 3, 4, 5)), np.zeros((0, 5)), np.zeros(9), np.full((5, 5), np.nan), np.zeros((4, 4), complex)]
)
def test_what_is_no_picture_is_refused(pixels):
    with pytest.raises(NoPicture):
        grey(pixels)


def test_a_flat_image_of_many_bits_is_flat():
    assert not grey(np.full((200, 200), 700, np.uint16), bits=12).any()
