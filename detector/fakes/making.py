"""Fakes of every kind, made from the radiographs of a split into one folder: the stage between trained generators and training.

Which patients a generator gets is drawn by its name and the seed, half of its images from each source. A generator whose fakes
are all there is not asked again.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.fakes.made import Fake, FakeFolder, Family
from detector.fakes.tampering import NowhereToTamper, tamper

Grey = NDArray[np.uint8]
Real = tuple[str, Grey]
"""Its source, and its pixels (H, W) uint8."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Remade:
    """A generator that re-makes an image: (H, W) uint8 to the same shape."""

    family: Family
    generator: str
    remaker: Callable[[Grey], Grey]

    def fakes(self, images: Mapping[str, Real], count: int, rng: np.random.Generator) -> Iterator[Fake]:
        for patient, source, pixels in _chosen(images, count, rng):
            yield Fake(self.remaker(pixels), self.family, self.generator, source, patient)


@dataclass(frozen=True)
class Invented:
    """A generator that makes images from noise: (how many, seed) to fakes."""

    generator: str
    fakes_of: Callable[[int, int], Iterator[Fake]]

    def fakes(self, _images: Mapping[str, Real], count: int, rng: np.random.Generator) -> Iterator[Fake]:
        yield from self.fakes_of(count, int(rng.integers(2**31)))


@dataclass(frozen=True)
class Tampered:
    """Somebody who changes a place of an image with a re-maker's help, where there is such a place. others: from how many other
    images at most something may be put in."""

    generator: str
    remaker: Callable[[Grey], Grey]
    others: int = 12

    def fakes(self, images: Mapping[str, Real], count: int, rng: np.random.Generator) -> Iterator[Fake]:
        for patient, source, pixels in _chosen(images, count, rng):
            near = [other for name, (one, other) in sorted(images.items()) if one == source and name != patient]
            others = [near[place] for place in rng.permutation(len(near))[: self.others]]
            try:
                changed, mask = tamper(pixels, rng, remaker=self.remaker, others=others)
            except NowhereToTamper:
                continue
            yield Fake(changed, "tampering", self.generator, source, patient, mask)


Maker = Remade | Invented | Tampered


def make(maker: Maker, images: Mapping[str, Real], folder: FakeFolder, *, count: int, seed: int, progress: Progress) -> int:
    """Makes one generator's fakes; images: patient -> (source, pixels). How many there are now that were not there before."""
    if folder.has(maker.generator):
        return 0
    rng = np.random.default_rng((seed, zlib.crc32(maker.generator.encode())))

    def counted() -> Iterator[Fake]:
        for number, fake in enumerate(maker.fakes(images, count, rng), 1):
            progress(number, count)
            yield fake

    return folder.add(counted())


def _chosen(images: Mapping[str, Real], count: int, rng: np.random.Generator) -> Iterator[tuple[str, str, Grey]]:
    """count images, as many of each source as there are; each patient once."""
    sources = sorted({source for source, _ in images.values()})
    for number, source in enumerate(sources):
        share = count // len(sources) + (number < count % len(sources))
        patients = sorted(patient for patient, (one, _) in images.items() if one == source)
        for place in rng.permutation(len(patients))[:share]:
            yield patients[place], source, images[patients[place]][1]
