"""Fakes of every kind into one folder: who is derived from whom, and nothing made twice."""

from __future__ import annotations

import numpy as np
import pytest

from detector.fakes.flux import TinyFlux
from detector.fakes.made import Fake, FakeFolder
from detector.fakes.making import Invented, Remade, Tampered, make
from detector.splits import DataMissing


@pytest.fixture
def images(chests):
    return {f"patient-{number}": ("nih" if number < 3 else "kermany", image) for number, image in enumerate(chests)}


def darker(image):
    return (image // 2).astype(np.uint8)


def made(maker, images, folder, count=4):
    return make(maker, images, folder, count=count, seed=1, progress=lambda done, total: None)


def test_remade_images_are_of_both_sources_and_of_different_patients(images, tmp_path):
    folder = FakeFolder(tmp_path)
    assert made(Remade("autoencoder", "darker", darker), images, folder) == 4
    fakes = list(folder)
    assert sorted(fake.source for fake in fakes) == ["kermany", "kermany", "nih", "nih"]
    assert len({fake.parent for fake in fakes}) == 4
    for fake in fakes:
        assert images[fake.parent][0] == fake.source
        assert np.array_equal(fake.pixels, darker(images[fake.parent][1]))


def test_a_generator_that_is_done_is_not_asked_again(images, tmp_path):
    folder = FakeFolder(tmp_path)
    made(Remade("autoencoder", "darker", darker), images, folder)

    def never(image):
        raise AssertionError

    assert made(Remade("autoencoder", "darker", never), images, folder) == 0


def test_tampered_and_invented_fakes_keep_what_they_are(images, tmp_path):
    def invent(count, seed):
        for number in range(count):
            yield Fake(np.full((64, 64), number, np.uint8), "gan", "levels", "nih")

    folder = FakeFolder(tmp_path)
    assert made(Tampered("darker", darker), images, folder, 2) == 2
    assert made(Invented("levels", invent), images, folder, 3) == 3
    tampered, invented = ([fake for fake in folder if fake.family == family] for family in ("tampering", "gan"))
    for fake in tampered:
        assert fake.mask.any()
        assert (fake.pixels != images[fake.parent][1]).mean() < 0.1
    assert [int(fake.pixels[0, 0]) for fake in invented] == [0, 1, 2]


def test_a_modern_decoder_remakes_an_image_in_place(radiograph_folder, chests, tmp_path):
    image = chests[0][:107, :131]
    remade = TinyFlux(radiograph_folder)(image)
    assert (remade.shape, remade.dtype) == (image.shape, np.uint8)
    assert 0 < np.abs(remade.astype(float) - image).mean() < 6
    with pytest.raises(DataMissing, match="taef2_encoder"):
        TinyFlux(tmp_path)
