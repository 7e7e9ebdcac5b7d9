"""What the detector is made of: which generators are trained for how long, and which fakes they give; for `scripts/train`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from detector.fakes import autoencoders, diffusion, gans
from detector.fakes.flux import TinyFlux
from detector.fakes.made import FakeFolder, Family
from detector.fakes.making import Invented, Maker, Progress, Remade, Tampered, make
from detector.fakes.superresolution import NETWORKS, Restorer
from detector.material import real_images
from detector.splits import SPLITS, Split

Grey = NDArray[np.uint8]
Remaker = Callable[[Grey], Grey]

BOTH: Final = "both"
"""The source of what has no parent: its generator learnt from all."""
SLOW: Final = ("esrgan-medium-2", "esrgan-medium-3", "esrgan-thick-3", "esrgan-thick-4", "realesrgan-x4plus")
"""Several seconds an image: a quarter as many of them. Of the other networks for super-resolution half as many."""
TEXTURES: Final = {"texture-512-weak": 0.1, "texture-512-strong": 0.25}
"""How much noise the diffusion model of textures takes away again."""
TAMPERERS: Final = ("nearest-f8-adv", "t2-f4", "taef2", "waifu2x-photo-2", "span-clearreality-4", "texture-512-strong")
"""Whose texture goes into tampered places."""


@dataclass(frozen=True)
class Amounts:
    """How much of each. fakes: of a generator, for each split."""

    autoencoder_steps: int
    gan_steps: int
    diffusion_steps: int
    network_steps: int
    fakes: Mapping[Split, int]


FULL: Final = Amounts(1200, 4000, 4000, 12_000, {"train": 100, "calibrate": 50, "test": 50})
"""About three hours on two cores."""
SMALL: Final = Amounts(3, 5, 3, 6, {"train": 2, "calibrate": 2, "test": 2})
"""That every stage runs: the weights know nothing."""


@dataclass(frozen=True)
class Kitchen:
    """Where everything is. folder: of what is made; data: the shared data; modules: npm's `node_modules`."""

    folder: Path
    data: Path
    modules: Path
    amounts: Amounts = FULL
    seed: int = 1

    def fakes(self, generator: str, split: Split) -> FakeFolder:
        """The folder of one generator's fakes for one split."""
        return FakeFolder(self.folder / "fakes" / generator / split)

    def reals(self, split: Split) -> dict[str, Grey]:
        """Patient -> (H, W) uint8 of a split."""
        return {patient: pixels for patient, (_, pixels) in real_images(self.data, [split]).items()}


TRAINED: Final = tuple(design.name for design in (*autoencoders.BANK, *gans.BANK, *diffusion.BANK))
"""The generators that are trained here, slowest last."""


def train_generator(kitchen: Kitchen, name: str, progress: Progress) -> None:
    """Trains one of TRAINED on the radiographs of the train split, or goes on with it."""
    images, folder, seed = list(kitchen.reals("train").values()), kitchen.folder / "generators", kitchen.seed
    amounts = kitchen.amounts
    for coder in autoencoders.BANK:
        if coder.name == name:
            autoencoders.train(coder, images, folder, seed=seed, steps=amounts.autoencoder_steps, progress=progress)
    for gan in gans.BANK:
        if gan.name == name:
            gans.train(gan, images, folder, seed=seed, steps=amounts.gan_steps, progress=progress)
    for model in diffusion.BANK:
        if model.name == name:
            diffusion.train(model, images, folder, seed=seed, steps=amounts.diffusion_steps, progress=progress)


def generators() -> tuple[str, ...]:
    """The names of all that fakes are made by."""
    coders = tuple(design.name for design in autoencoders.BANK)
    inventors = (*(design.name for design in gans.BANK), "whole-128")
    return (*coders, "taef2", *NETWORKS, *TEXTURES, *inventors, *(f"tampered-{name}" for name in TAMPERERS))


def maker(kitchen: Kitchen, name: str) -> Maker:
    """The maker of a generator's fakes; what it was trained to has to be there."""
    weights = kitchen.folder / "generators"
    if name.startswith("tampered-"):
        return Tampered(name, _remaker(kitchen, name.removeprefix("tampered-")))
    for design in gans.BANK:
        if design.name == name:
            return Invented(name, partial(gans.Inventor(design, weights / f"{name}.safetensors").fakes, BOTH))
    if name == "whole-128":
        return Invented(name, partial(diffusion.Sampler(diffusion.BANK[0], weights / f"{name}.safetensors").fakes, BOTH))
    restored = name in NETWORKS
    family: Family = "superresolution" if restored else "diffusion" if name in TEXTURES else "autoencoder"
    return Remade(family, name, _remaker(kitchen, name))


def _remaker(kitchen: Kitchen, name: str) -> Remaker:
    weights = kitchen.folder / "generators"
    if name == "taef2":
        return TinyFlux(kitchen.data)
    if name in NETWORKS:
        return Restorer(name, kitchen.modules)
    if name in TEXTURES:
        sampler = diffusion.Sampler(diffusion.BANK[1], weights / "texture-512.safetensors")
        return lambda image: sampler.remake(image, TEXTURES[name], seed=int(image[::7, ::7].sum()))
    design = next(one for one in autoencoders.BANK if one.name == name)
    return autoencoders.Remaker(design, weights / f"{name}.safetensors")


def make_fakes(kitchen: Kitchen, name: str, progress: Progress) -> None:
    """One generator's fakes for each split, those that are not there yet."""
    wanted: list[Split] = [split for split in SPLITS if not kitchen.fakes(name, split).has(name)]
    if not wanted:
        return
    chosen = maker(kitchen, name)
    for split in wanted:
        count = kitchen.amounts.fakes[split]
        images = real_images(kitchen.data, [split])
        share = 4 if name in SLOW else 2 if name in NETWORKS else 1
        make(chosen, images, kitchen.fakes(name, split), count=max(2, count // share), seed=kitchen.seed, progress=progress)


def all_fakes(kitchen: Kitchen, split: Split) -> Iterator[FakeFolder]:
    """The folders of every generator's fakes of a split."""
    return (kitchen.fakes(name, split) for name in generators())
