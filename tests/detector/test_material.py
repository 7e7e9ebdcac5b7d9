"""What the network learns from: pairs in place, masks that follow their images, and labels that say who made what."""

from __future__ import annotations

import numpy as np
import pytest

from detector import material
from detector.fakes.made import Fake
from detector.material import CROP, Material, real_images


@pytest.fixture
def reals(chests):
    return {f"patient-{number}": image for number, image in enumerate(chests)}


def whole(reals, change):
    return [Fake(change(image), "autoencoder", "changed", "nih", patient) for patient, image in reals.items()]


def plain(monkeypatch):
    """Nothing happens on the way, so that what was put in can be found again."""
    monkeypatch.setattr(material, "route", lambda rng: lambda image: image)
    monkeypatch.setattr(material, "_lived", lambda image, other, rng: image)
    monkeypatch.setattr(material, "WEAKENED", 0)
    monkeypatch.setattr(material, "MATCHED", 0)


def test_a_pair_is_one_place_before_and_after(reals, monkeypatch):
    plain(monkeypatch)
    batch = Material(reals, whole(reals, lambda image: image // 2)).batch(1, 5, 6)
    assert batch.images.shape == (12, 1, CROP, CROP)
    assert batch.targets.shape == (12, 1, CROP // 8, CROP // 8)
    assert batch.targets.reshape(12, -1).mean(1).tolist() == [0, 1] * 6
    assert batch.whole.all()
    assert np.array_equal(batch.images[1::2], batch.images[::2] // 2)


def test_a_mask_goes_where_its_image_goes(reals, monkeypatch):
    plain(monkeypatch)
    fakes = []
    for patient, image in reals.items():
        mask = np.zeros(image.shape, bool)
        mask[200:280, 200:280] = True
        fakes.append(
            Fake(np.where(mask, 255, np.minimum(image, 200)).astype(np.uint8), "tampering", "box", "nih", patient, mask)
        )
    batch = Material(reals, fakes).batch(2, 1, 12)
    made = batch.images[1::2] == 255
    expected = made.reshape(12, 1, CROP // 8, 8, CROP // 8, 8).mean((3, 5))
    np.testing.assert_allclose(batch.targets[1::2], expected, atol=1e-6)
    assert (batch.targets[1::2].reshape(12, -1).max(1) == 1).mean() > 0.5
    assert not batch.whole[1::2].any()


def test_images_from_noise_stand_beside_real_ones_of_their_size(reals):
    fakes = [Fake(np.full((128, 128), 90, np.uint8), "gan", "flat", "both")]
    batch = Material(reals, fakes).batch(1, 1, 4)
    assert batch.images.shape == (8, 1, CROP, CROP)
    assert batch.targets.reshape(8, -1).mean(1).tolist() == [0, 1] * 4


def test_each_family_and_generator_is_drawn_as_often(reals, monkeypatch):
    plain(monkeypatch)
    image = reals["patient-0"]
    fakes = [Fake(np.full(image.shape, 11, np.uint8), "autoencoder", "many", "nih", "patient-0") for _ in range(30)]
    fakes += [Fake(np.full(image.shape, 22, np.uint8), "superresolution", "one", "nih", "patient-0")]
    fakes += [Fake(np.full(image.shape, 33, np.uint8), "superresolution", "other", "nih", "patient-0")]
    batch = Material(reals, fakes).batch(1, 1, 400)
    shares = [float((batch.images[1::2, 0, 0, 0] == value).mean()) for value in (11, 22, 33)]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.08)


def test_the_same_numbers_give_the_same_batch(reals):
    ways = Material(reals, whole(reals, lambda image: image // 2))
    first, again, other = ways.batch(1, 5, 4), ways.batch(1, 5, 4), ways.batch(1, 6, 4)
    assert np.array_equal(first.images, again.images)
    assert not np.array_equal(first.images, other.images)


def test_fakes_of_somebody_else_are_left_out_and_nothing_is_nothing(reals):
    stranger = Fake(np.zeros((200, 200), np.uint8), "autoencoder", "x", "nih", "another patient")
    with pytest.raises(ValueError, match="nothing to learn"):
        Material({}, [stranger])
    with pytest.raises(ValueError, match="nothing to learn"):
        Material(reals, [])
    with pytest.raises(ValueError, match="nothing to learn"):
        Material(reals, [stranger])


def test_real_images_are_read_by_split(radiograph_folder):
    found = real_images(radiograph_folder, ["test"], "nih", side=300)
    assert {source for source, _ in found.values()} == {"nih"}
    assert all(max(pixels.shape) == 300 for _, pixels in found.values())
