"""What the parts of the detector measure on many images, real and fake, under named conditions: the table that thresholds are
fitted to and figures are taken from."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector.augment import recoded, scaled, to_grey
from detector.evidence import Evidence, Logits, measured
from detector.fakes.made import Fake
from detector.fakes.making import Real

Grey = NDArray[np.uint8]


class Subject(NamedTuple):
    """An image to look at. family, generator: None for a real one. patient: whose it is or was derived from, if anybody's."""

    pixels: Grey
    source: str
    patient: str | None
    family: str | None = None
    generator: str | None = None
    mask: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class Trial:
    """What was measured on a subject, under a condition. place: the top-scoring region's overlap with the mask, see `iou`."""

    source: str
    patient: str | None
    family: str | None
    generator: str | None
    condition: str
    evidence: Evidence


def real_subjects(images: Mapping[str, Real]) -> Iterator[Subject]:
    """Of `material.real_images`."""
    for patient, (source, pixels) in images.items():
        yield Subject(pixels, source, patient)


def fake_subjects(fakes: Iterable[Fake]) -> Iterator[Subject]:
    """Of a folder of fakes."""
    for fake in fakes:
        yield Subject(fake.pixels, fake.source, fake.parent, fake.family, fake.generator, fake.mask)


def _jpeg(image: Grey) -> Grey:
    return recoded(image, "JPEG", 75)


def _half(image: Grey) -> Grey:
    return scaled(image, 0.5)


def _cropped(image: Grey) -> Grey:
    """The middle 70 percent of each side, off the grid of eight."""
    top, left = (round(0.15 * side) | 1 for side in image.shape)
    return image[top : top + round(0.7 * image.shape[0]), left : left + round(0.7 * image.shape[1])]


def _windowed(image: Grey) -> Grey:
    """Half as much contrast again around the middle grey, gamma 0.8."""
    return to_grey(255 * np.clip((image / 255.0) ** 0.8 * 1.5 - 0.25, 0, 1))


CONDITIONS: Final[Mapping[str, Callable[[Grey], Grey]]] = {
    "as it is": lambda image: image,
    "JPEG 75": _jpeg,
    "half scale": _half,
    "JPEG 75 and half scale": lambda image: _half(_jpeg(image)),
    "crop": _cropped,
    "window": _windowed,
}
"""What figures are reported under, thresholds being the same."""

SIZES: Final[Mapping[str, Callable[[Grey], Grey]]] = {
    "full": lambda image: image,
    "half": _half,
    "quarter": lambda image: scaled(image, 0.25),
}
"""What thresholds are fitted to, each image by chance as it is or compressed."""


def look(
    subjects: Iterable[Subject], conditions: Mapping[str, Callable[[Grey], Grey]], logits: Logits, *, vary: bool = False
) -> Iterator[Trial]:
    """A trial for each subject under each condition, but where it is then too small. vary: half of the images, by patient and
    condition, go through JPEG (quality 60 to 95) after it."""
    for number, subject in enumerate(subjects):
        for name, change in conditions.items():
            image = change(subject.pixels)
            if vary:
                chance = np.random.default_rng(zlib.crc32(f"{subject.patient or number} {name}".encode()))
                if chance.random() < 0.5:
                    image = recoded(image, "JPEG", int(chance.integers(60, 96)))
            evidence = measured(image, logits)
            if evidence is not None:
                yield Trial(subject.source, subject.patient, subject.family, subject.generator, name, evidence)
