"""GANs that are trained on the shared radiographs: images from noise, by generators that up-sample in different ways.

Each grows from 16 pixels a side to its own (progressive growing, arXiv 1710.10196): most of its steps are cheap ones. The
generators differ in how they double their sides and in what else leaves traces: noise inputs and excitation of late layers by
early ones (arXiv 2101.04775), residual blocks, or nothing. Few images are made to go further by changes that generator and
discriminator both see through (DiffAugment, arXiv 2006.10738). The discriminator is kept: it is one of the detectors compared.
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

from detector.fakes.autoencoders import Noise, Progress, Residual, Upsample
from detector.fakes.made import Fake

LATENT: Final = 128
FIRST: Final = 8
"""Pixels a side that the latent is spread over."""
CHECKPOINT_EVERY: Final = 200
_KEPT: Final = 0.995
"""Of the averaged generator at each step (EMA)."""
_PENALTY_EVERY: Final = 8
_PENALTY: Final = 0.02
_SHARES: Final = (0.12, 0.2, 0.24, 0.24, 0.2)
"""Of the steps, at sides of 16, 32, 64, 128, 256; a smaller design leaves out the last."""


@dataclass(frozen=True)
class Design:
    """One GAN. side: of its images; upsampling: as in `autoencoders.Design`; extras: noise and excitation, residual, plain."""

    name: str
    upsampling: str
    side: int
    extras: str

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels at 8, 16, ... pixels a side."""
        return (128, 128, 96, 64, 32, 16)[: self.side.bit_length() - FIRST.bit_length() + 1]


BANK: Final = (
    Design("transposed-128", "t4", 128, "plain"),
    Design("nearest-256", "nearest", 256, "noise"),
    Design("shuffle-256", "shuffle", 256, "residual"),
)


class Excitation(nn.Module):
    """Channels of a late layer, scaled by what an early one shows at 4 x 4 places (skip-layer excitation)."""

    def __init__(self, early: int, late: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.AdaptiveAvgPool2d(4), nn.Conv2d(early, 32, 4), nn.SiLU(), nn.Conv2d(32, late, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor, early: Tensor) -> Tensor:
        out: Tensor = x * 2 * self.body(early)
        return out


class Generator(nn.Module):
    """(B, LATENT) to (B, 1, side, side), about 0..1. level: how often 8 is doubled; new: how far the last one counts."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        widths = design.widths
        self.start = nn.Linear(LATENT, widths[0] * FIRST * FIRST)
        self.levels = nn.ModuleList()
        self.grey = nn.ModuleList(nn.Conv2d(width, 1, 3, padding=1) for width in widths)
        for layer in self.grey:
            nn.init.constant_(layer.bias, 0.4)  # type: ignore[arg-type]  # a radiograph's mean
        for inner, outer in pairwise(widths):
            parts: list[nn.Module] = [Upsample(design.upsampling, inner, outer), nn.GroupNorm(8, outer), nn.LeakyReLU(0.2)]
            if design.extras == "noise":
                parts.append(Noise(outer))
            parts.append(Residual(outer) if design.extras == "residual" else nn.Conv2d(outer, outer, 3, padding=1))
            self.levels.append(nn.Sequential(*parts, nn.LeakyReLU(0.2)))
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
        return out


class Discriminator(nn.Module):
    """(B, 1, side, side) at a level's side to (B,), high for real ones."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        widths = design.widths
        self.grey = nn.ModuleList(nn.Conv2d(1, width, 3, padding=1) for width in widths)
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(outer, outer, 3, padding=1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(outer, inner, 4, 2, 1),
                nn.LeakyReLU(0.2),
            )
            for inner, outer in pairwise(widths)
        )
        self.end = nn.Sequential(
            nn.Conv2d(widths[0] + 1, widths[0], 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(widths[0] * 64, 1),
        )

    def forward(self, x: Tensor, level: int, new: float = 1.0) -> Tensor:
        seen = functional.leaky_relu(self.grey[level](x), 0.2)
        if level:
            seen = self.levels[level - 1](seen)
            if new < 1:
                old = functional.leaky_relu(self.grey[level - 1](functional.avg_pool2d(x, 2)), 0.2)
                seen = old + new * (seen - old)
            for number in range(level - 2, -1, -1):
                seen = self.levels[number](seen)
        # How much the batch differs: a generator that makes one image is found out (arXiv 1710.10196).
        spread = seen.float().std(0, unbiased=False).mean().to(seen.dtype).expand(len(seen), 1, *seen.shape[2:])
        out: Tensor = self.end(torch.cat([seen, spread], 1))[:, 0]
        return out


def _changed(x: Tensor) -> Tensor:
    """Brighter or darker, with other contrast, moved by up to an eighth, and with a quarter of the side cut out."""
    count, _, side, _ = x.shape
    x = x + 0.3 * (torch.rand(count, 1, 1, 1) - 0.5)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * (0.7 + 0.6 * torch.rand(count, 1, 1, 1)) + mean
    places = torch.linspace(-1, 1, side)
    down, right = torch.meshgrid(places, places, indexing="ij")
    moved = torch.stack([right, down], -1) + 0.25 * (torch.rand(count, 1, 1, 2) - 0.5)
    x = functional.grid_sample(x, moved, mode="nearest", padding_mode="reflection", align_corners=True)
    centre = 2 * torch.rand(count, 2, 1, 1) - 1
    hole = ((down - centre[:, 0]).abs() < 0.25) & ((right - centre[:, 1]).abs() < 0.25)
    return x * ~hole[:, None]


def _penalty(judge: Discriminator, real: Tensor, level: int, new: float) -> Tensor:
    """How steep the discriminator is at real images (R1, arXiv 1801.04406)."""
    seen = real.clone().requires_grad_(True)
    slope: Tensor = torch.autograd.grad(judge(seen, level, new).sum(), seen, create_graph=True)[0]
    return _PENALTY * slope.square().sum((1, 2, 3)).mean()


def _stage(step: int, steps: int, levels: int) -> tuple[int, float]:
    """The level of a step, and how far it counts: half a level's steps blend it in."""
    shares = np.cumsum(_SHARES[:levels]) / sum(_SHARES[:levels])
    number = int(np.searchsorted(shares, step / steps, side="right"))
    begun = 0.0 if number == 0 else shares[number - 1]
    done = (step / steps - begun) / (shares[number] - begun)
    return number + 1, 1.0 if number == 0 else min(1.0, 0.05 + 2 * done)


def train(
    design: Design, images: Sequence[NDArray[np.uint8]], folder: Path, *, seed: int, steps: int, progress: Progress
) -> Path:
    """Trains a GAN on images of any size, goes on from its last checkpoint, and returns the file of its weights.

    Beside it is `<name>-discriminator.safetensors`.
    """
    weights = folder / f"{design.name}.safetensors"
    if weights.exists():
        return weights
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    network, judge = Generator(design), Discriminator(design)
    for part in (network, judge):
        part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = copy.deepcopy(network)
    maker = torch.optim.Adam(network.parameters(), 1e-3, betas=(0.0, 0.99))
    critic = torch.optim.Adam(judge.parameters(), 1e-3, betas=(0.0, 0.99))
    parts: dict[str, Any] = {"network": network, "judge": judge, "averaged": averaged, "maker": maker, "critic": critic}
    checkpoint, begun = folder / f"{design.name}.checkpoint", 0
    if checkpoint.exists():
        kept = torch.load(checkpoint, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(kept[name])
        begun = kept["step"]
    squares = {side: squared(images, side) for side in (FIRST << level for level in range(1, len(design.widths)))}
    for step in range(begun, steps):
        torch.manual_seed(seed * 1_000_003 + step)
        rng = np.random.default_rng((seed, step))
        level, new = _stage(step, steps, len(design.widths) - 1)
        side = FIRST << level
        batch = 16 if side <= 64 else 8
        real = torch.from_numpy(squares[side][rng.integers(len(images), size=batch)]).float()[:, None] / 255
        with torch.autocast("cpu", torch.bfloat16):
            made = network(torch.randn(batch, LATENT), level, new)
            told = judge(_changed(torch.cat([real, made.detach().float()])), level, new).float()
        cost = functional.softplus(-told[:batch]).mean() + functional.softplus(told[batch:]).mean()
        if step % _PENALTY_EVERY == 0:
            cost = cost + _PENALTY_EVERY * _penalty(judge, real, level, new)
        critic.zero_grad()
        cost.backward()  # type: ignore[no-untyped-call]
        critic.step()
        with torch.autocast("cpu", torch.bfloat16):
            loss = functional.softplus(-judge(_changed(made.float()), level, new).float()).mean()
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
    save_file(_whole(judge), folder / f"{design.name}-discriminator.safetensors")
    save_file(_whole(averaged), weights)
    checkpoint.unlink(missing_ok=True)
    return weights


def _whole(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.contiguous() for name, value in network.state_dict().items()}


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
            yield (made.clamp(0, 1) * 255).round().to(torch.uint8).numpy()

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
        x = torch.from_numpy(squared([image], self._side)).float()[:, None] / 255
        with torch.inference_mode():
            return -float(self._network(x, self._level)[0])
