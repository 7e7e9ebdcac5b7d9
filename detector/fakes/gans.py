"""GANs that are trained on the shared radiographs: images from noise, by generators that up-sample in different ways.

Few images and little time make them learn in this order. First the generator gives back reduced training images from their
principal components, which stand in the latent's first numbers (generative latent optimisation, arXiv 1707.05776, with the
codes given). Then it plays against the discriminator, half of its latents such codes and half of them noise; the codes keep
pulling at what it makes at 32 pixels, so that it stays a chest, and at the pixels of sides that are new. Sides grow from 32
pixels on (arXiv 1710.10196): most steps are cheap ones. Both see the images through the same changes (DiffAugment, arXiv
2006.10738); the discriminator has to remember what it saw (arXiv 2101.04775) and is held smooth (spectral normalisation, arXiv
1802.05957). It is kept: it is one of the detectors compared.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from detector.fakes.autoencoders import Noise, Progress, Residual, Upsample
from detector.fakes.made import Fake

LATENT: Final = 64
CODE: Final = 48
"""How many of the latent's numbers are principal components, while it is trained."""
FIRST: Final = 8
"""Pixels a side that the latent is spread over."""
LOWEST: Final = 2
"""The level that training begins with, how often FIRST is doubled: 32 pixels a side."""
CHECKPOINT_EVERY: Final = 200
_KEPT: Final = 0.995
"""Of the averaged generator at each step (EMA)."""
_RATE: Final = 5e-4
_WARMING: Final = 0.08  # of the steps: the generator learns alone
_ANCHOR: Final = 4.0
"""How much what the codes stand for counts beside what the discriminator says."""
_SHARES: Final = (0.33, 0.31, 0.22, 0.14)
"""Of the steps, at sides of 32, 64, 128, 256; a smaller design leaves out the last."""


@dataclass(frozen=True)
class Design:
    """One GAN. side: of its images; upsampling: as in `autoencoders.Design`; extras: noise and excitation, residual, plain."""

    name: str
    upsampling: str
    side: int
    extras: str
    most: int = 128

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels at 8, 16, ... pixels a side, `most` at most."""
        levels = self.side.bit_length() - FIRST.bit_length()
        return tuple(min(width, self.most) for width in (128, 128, 96, 64, 32, 16)[: levels + 1])


BANK: Final = (
    Design("transposed-128", "t4", 128, "plain"),
    Design("nearest-256", "nearest", 256, "noise"),
    Design("shuffle-256", "shuffle", 256, "residual"),
)


class Excitation(nn.Module):
    """Channels of a late layer, scaled by what an early one shows at 4 x 4 places (skip-layer excitation)."""

    def __init__(self, early: int, late: int) -> None:
        super().__init__()
        places = nn.AdaptiveAvgPool2d(4)
        self.body = nn.Sequential(places, nn.Conv2d(early, 32, 4), nn.SiLU(), nn.Conv2d(32, late, 1), nn.Sigmoid())

    def forward(self, x: Tensor, early: Tensor) -> Tensor:
        out: Tensor = x * 2 * self.body(early)
        return out


class Generator(nn.Module):
    """(B, LATENT) to (B, 1, side, side) in -1..1. level: how often FIRST is doubled; new: how far the last doubling counts."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        widths = design.widths
        self.start = nn.Linear(LATENT, widths[0] * FIRST**2)
        self.levels = nn.ModuleList()
        self.grey = nn.ModuleList(nn.Conv2d(width, 1, 3, padding=1) for width in widths)
        for inner, outer in pairwise(widths):
            parts: list[nn.Module] = [Upsample(design.upsampling, inner, outer)]
            if outer >= 64:  # Normalising long sides costs more than it brings.
                parts.append(nn.GroupNorm(8, outer))
            parts.append(nn.LeakyReLU(0.2))
            if design.extras == "noise":
                parts.append(Noise(outer))
            if outer >= 32 and design.extras != "plain":
                parts += [Residual(outer)] if design.extras == "residual" else [nn.Conv2d(outer, outer, 3, padding=1)]
                parts.append(nn.LeakyReLU(0.2))
            self.levels.append(nn.Sequential(*parts))
        self.excitation = Excitation(widths[1], widths[-1]) if design.extras == "noise" else None

    def forward(self, z: Tensor, level: int, new: float = 1.0) -> Tensor:
        x = functional.leaky_relu(self.start(z).reshape(len(z), -1, FIRST, FIRST), 0.2)
        early: Tensor | None = None
        before = x
        for number in range(level):
            before = x
            x = self.levels[number](x)
            early = x if early is None else early
        if self.excitation is not None and level == len(self.levels) and early is not None:
            x = self.excitation(x, early)
        out: Tensor = self.grey[level](x)
        if new < 1:
            old = functional.interpolate(self.grey[level - 1](before), scale_factor=2, mode="bilinear")
            out = old + new * (out - old)
        return out.float().tanh()


class Halving(nn.Module):
    """Half the sides: two convolutions beside one of the means."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(inner, outer, 4, 2, 1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(outer, outer, 3, padding=1)),
        )
        self.mean = spectral_norm(nn.Conv2d(inner, outer, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x) + self.mean(functional.avg_pool2d(x, 2))
        return out


class Discriminator(nn.Module):
    """(B, 1, side, side) in -1..1, at a level's side, to (B, 25), high for real ones: an opinion for each of 5 x 5 places."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        widths = design.widths
        self.grey = nn.ModuleList(spectral_norm(nn.Conv2d(1, width, 4, 2, 1)) for width in widths[:-1])
        self.levels = nn.ModuleList(Halving(outer, inner) for inner, outer in pairwise(widths[:-1]))
        self.end = nn.Sequential(
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(widths[0] + 1, widths[0], 1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(widths[0], 1, 4)),
            nn.Flatten(),
        )
        self.memory = nn.Sequential(
            nn.LeakyReLU(0.2),
            Upsample("nearest", widths[0], 32),
            nn.LeakyReLU(0.2),
            Upsample("nearest", 32, 16),
            nn.LeakyReLU(0.2),
            nn.Conv2d(16, 1, 3, padding=1),
        )

    def features(self, x: Tensor, level: int, new: float = 1.0) -> Tensor:
        """(B, C, 8, 8)"""
        seen = self.grey[level - 1](x)
        for number in range(level - 2, -1, -1):
            seen = self.levels[number](seen)
            if number == level - 2 and new < 1:
                old = self.grey[number](functional.avg_pool2d(x, 2))
                seen = old + new * (seen - old)
        return seen  # type: ignore[no-any-return]

    def opinions(self, features: Tensor) -> Tensor:
        # How much the batch differs: a generator that makes one image is found out (arXiv 1710.10196).
        spread = features.float().std(0, unbiased=False).mean().to(features.dtype)
        out: Tensor = self.end(torch.cat([features, spread.expand(len(features), 1, *features.shape[2:])], 1))
        return out

    def forward(self, x: Tensor, level: int, new: float = 1.0) -> Tensor:
        return self.opinions(self.features(x, level, new))


def _changed(x: Tensor) -> Tensor:
    """Brighter or darker, with other contrast, moved by up to an eighth, and with a quarter of the side cut out."""
    count, _, side, _ = x.shape
    x = x + 0.5 * (torch.rand(count, 1, 1, 1) - 0.5)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * (0.7 + 0.6 * torch.rand(count, 1, 1, 1)) + mean
    places = torch.linspace(-1, 1, side)
    down, right = torch.meshgrid(places, places, indexing="ij")
    moved = torch.stack([right, down], -1) + 0.25 * (torch.rand(count, 1, 1, 2) - 0.5)
    x = functional.grid_sample(x, moved, mode="nearest", padding_mode="reflection", align_corners=True)
    centre = 2 * torch.rand(count, 2, 1, 1) - 1
    hole = ((down - centre[:, 0]).abs() < 0.25) & ((right - centre[:, 1]).abs() < 0.25)
    return x * ~hole[:, None]


def _reduced(x: Tensor) -> Tensor:
    """To 32 pixels a side."""
    return functional.adaptive_avg_pool2d(x, FIRST << LOWEST)


def _codes(squares: NDArray[np.uint8]) -> Tensor:
    """(N, side, side) to (N, CODE): principal components, each of variance 1, as many as there are; zeros for the rest."""
    flat = squares.reshape(len(squares), -1).astype(np.float64)
    left, strength, _ = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    kept = left[:, strength > strength[0] * 1e-6][:, :CODE] * np.sqrt(len(squares))
    return torch.from_numpy(np.pad(kept, [(0, 0), (0, CODE - kept.shape[1])])).float()


def _stage(step: int, steps: int, levels: int) -> tuple[int, float]:
    """The level of a step, and how far it counts: the first of a level's steps blend it in."""
    chosen = _SHARES[: levels - LOWEST + 1]
    shares = np.cumsum(chosen) / sum(chosen)
    number = int(np.searchsorted(shares, step / steps, side="right"))
    begun = 0.0 if number == 0 else shares[number - 1]
    done = (step / steps - begun) / (shares[number] - begun)
    return number + LOWEST, 1.0 if number == 0 else float(min(1.0, 0.1 + 2.5 * done))


def train(
    design: Design, images: Sequence[NDArray[np.uint8]], folder: Path, *, seed: int, steps: int, progress: Progress
) -> Path:
    """Trains a GAN on images of any size, goes on from its last checkpoint, and returns the file of its weights.

    design: of 32 pixels a side at least. Beside the weights is `<name>-discriminator.safetensors`.
    """
    weights = folder / f"{design.name}.safetensors"
    if weights.exists():
        return weights
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    network, judge = Generator(design), Discriminator(design)
    nn.ModuleList((network, judge)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = copy.deepcopy(network)
    maker = torch.optim.Adam(network.parameters(), _RATE, betas=(0.5, 0.99))
    critic = torch.optim.Adam(judge.parameters(), _RATE, betas=(0.5, 0.99))
    parts: dict[str, Any] = {"network": network, "judge": judge, "averaged": averaged, "maker": maker, "critic": critic}
    checkpoint, begun = folder / f"{design.name}.checkpoint", 0
    if checkpoint.exists():
        kept = torch.load(checkpoint, weights_only=True)
        begun = kept.pop("step")
        for name, state in kept.items():
            parts[name].load_state_dict(state)
    top = len(design.widths) - 1
    squares = {level: squared(images, FIRST << level) for level in range(LOWEST, top + 1)}
    codes = _codes(squares[LOWEST])
    for step in range(begun, steps):
        torch.manual_seed(seed * 1_000_003 + step)
        rng = np.random.default_rng((seed, step))
        level, new = _stage(step, steps, top)
        batch = 16 if level == LOWEST else 8
        alone = step < _WARMING * steps
        coded = batch if alone else batch // 2
        chosen = rng.integers(len(images), size=batch)
        real = torch.from_numpy(squares[level][chosen]).float()[:, None] / 127.5 - 1
        z = torch.randn(batch, LATENT)
        z[:coded, :CODE] = codes[torch.from_numpy(chosen[:coded])] + 0.1 * z[:coded, :CODE]
        with torch.autocast("cpu", torch.bfloat16):
            made = network(z, level, new)
        loss = _ANCHOR * (_reduced(made[:coded]) - _reduced(real[:coded])).abs().mean()
        if new < 1:
            loss = loss + _ANCHOR * (made[:coded] - real[:coded]).abs().mean()
        if not alone:
            judge.requires_grad_(True)
            with torch.autocast("cpu", torch.bfloat16):
                seen = _changed(real)
                features = judge.features(seen, level, new)
                remembered = (judge.memory(features).float() - _reduced(seen)).abs().mean()
                told = judge.opinions(features).float(), judge(_changed(made.detach()), level, new).float()
            cost = functional.relu(1 - told[0]).mean() + functional.relu(1 + told[1]).mean() + remembered
            critic.zero_grad()
            cost.backward()
            critic.step()
            judge.requires_grad_(False)
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss - judge(_changed(made), level, new).float().mean()
        maker.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        maker.step()
        with torch.no_grad():
            share = min(_KEPT, (step + 1) / (step + 10))
            for mean, value in zip(averaged.parameters(), network.parameters(), strict=True):
                mean.lerp_(value, 1 - share)
        if (step + 1) % CHECKPOINT_EVERY == 0:
            unfinished = checkpoint.with_suffix(".new")
            torch.save({name: part.state_dict() for name, part in parts.items()} | {"step": step + 1}, unfinished)
            unfinished.replace(checkpoint)
        progress(step + 1, steps)
    for learnt, file in ((judge, folder / f"{design.name}-discriminator.safetensors"), (averaged, weights)):
        save_file({name: value.contiguous() for name, value in learnt.state_dict().items()}, file)
    checkpoint.unlink(missing_ok=True)
    return weights


def squared(images: Sequence[NDArray[np.uint8]], side: int) -> NDArray[np.uint8]:
    """(N, side, side): the middle square of each image, reduced by Lanczos."""
    found = []
    for image in images:
        short = min(image.shape)
        top, left = ((length - short) // 2 for length in image.shape)
        square = Image.fromarray(image[top : top + short, left : left + short])
        found.append(np.asarray(square.resize((side, side), Image.Resampling.LANCZOS)))
    return np.stack(found)


class Inventor:
    """A trained GAN: images from noise."""

    def __init__(self, design: Design, weights: Path) -> None:
        self.name, self._level = design.name, len(design.widths) - 1
        self._network = Generator(design)
        self._network.load_state_dict(load_file(weights))
        self._network.eval()

    def make(self, count: int, seed: int) -> Iterator[NDArray[np.uint8]]:
        """count images (side, side) uint8."""
        torch.manual_seed(seed)
        for _ in range(count):
            with torch.inference_mode():
                made = self._network(torch.randn(1, LATENT), self._level)[0, 0]
            yield ((made + 1) * 127.5).round().to(torch.uint8).numpy()

    def fakes(self, source: str, count: int, seed: int) -> Iterator[Fake]:
        """The same as fakes; source: what the GAN was trained on."""
        for pixels in self.make(count, seed):
            yield Fake(pixels, "gan", self.name, source)


class Judge:
    """A trained discriminator as a detector: higher is more like what the generator makes."""

    def __init__(self, design: Design, weights: Path) -> None:
        self._side, self._level = design.side, len(design.widths) - 1
        self._network = Discriminator(design)
        self._network.load_state_dict(load_file(weights))
        self._network.eval()

    def score(self, image: NDArray[np.uint8]) -> float:
        """Of an image of any size (H, W): its middle square at the GAN's side."""
        x = torch.from_numpy(squared([image], self._side)).float()[:, None] / 127.5 - 1
        with torch.inference_mode():
            return -float(self._network(x, self._level).mean())
