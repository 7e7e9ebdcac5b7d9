"""Small diffusion models that are trained on the shared radiographs: images from noise, and images re-made from some noise on.

`whole-128` learns whole radiographs of 128 pixels, two by two pixels at a time (a patch becomes four channels), and makes
them from noise. `texture-512` learns crops at full size and re-makes: noise is added to a real image up to a level and taken
away again (SDEdit, arXiv 2108.01073), which keeps the anatomy and makes the fine texture anew, in all of an image or, with
what is around it kept (RePaint, arXiv 2201.09865), in a place of it. Neither has an up-sampling decoder after the last step:
what they leave is not a lattice but a texture.

The schedule is the cosine one, the target the velocity v (arXiv 2202.00512): x_t = cos(pi t / 2) x + sin(pi t / 2) e.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from detector.fakes.autoencoders import Progress
from detector.fakes.gans import squared
from detector.fakes.made import Fake

CHECKPOINT_EVERY: Final = 200
_KEPT: Final = 0.998
_WAVES: Final = 32


@dataclass(frozen=True)
class Design:
    """One model. side: of what it is trained on; patch: pixels a side that become channels; highest: the noise level t, 0..1,
    up to which it is trained; widths: channels at each of its resolutions."""

    name: str
    side: int
    patch: int
    highest: float
    widths: tuple[int, ...]


BANK: Final = (
    Design("whole-128", 128, 2, 1.0, (48, 80, 112, 128)),
    Design("texture-512", 64, 1, 0.45, (24, 48, 64)),
)


class Block(nn.Module):
    """Two convolutions and a way around them; the noise level shifts what is between them."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(8, inner), nn.SiLU(), nn.Conv2d(inner, outer, 3, padding=1))
        self.level = nn.Linear(2 * _WAVES, outer)
        self.second = nn.Sequential(nn.GroupNorm(8, outer), nn.SiLU(), nn.Conv2d(outer, outer, 3, padding=1))
        self.around = nn.Conv2d(inner, outer, 1) if inner != outer else nn.Identity()

    def forward(self, x: Tensor, waves: Tensor) -> Tensor:
        out: Tensor = self.around(x) + self.second(self.first(x) + self.level(waves)[:, :, None, None])
        return out


class UNet(nn.Module):
    """(B, 1, H, W) noisy about -1..1 and t (B,) to the velocity (B, 1, H, W); sides multiples of `Sampler.factor`."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        widths, self.patch = design.widths, design.patch
        self.start = nn.Conv2d(design.patch**2, widths[0], 3, padding=1)
        self.down = nn.ModuleList(Block(inner, outer) for inner, outer in pairwise((widths[0], *widths)))
        self.middle = Block(widths[-1], widths[-1])
        self.up = nn.ModuleList(
            Block(below + beside, beside) for below, beside in zip((widths[-1], *widths[:0:-1]), widths[::-1], strict=True)
        )
        self.end = nn.Sequential(nn.GroupNorm(8, widths[0]), nn.SiLU(), nn.Conv2d(widths[0], design.patch**2, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t[:, None] * torch.exp(torch.linspace(0, math.log(200), _WAVES))
        waves = torch.cat([angles.sin(), angles.cos()], 1)
        x = self.start(functional.pixel_unshuffle(x, self.patch))
        beside = []
        for number, block in enumerate(self.down):
            x = block(functional.avg_pool2d(x, 2) if number else x, waves)
            beside.append(x)
        x = self.middle(x, waves)
        for number, block in enumerate(self.up):
            if number:
                x = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = block(torch.cat([x, beside.pop()], 1), waves)
        out: Tensor = functional.pixel_shuffle(self.end(x), self.patch)
        return out


def _mixed(x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    return torch.cos(t * math.pi / 2) * x + torch.sin(t * math.pi / 2) * noise


def train(
    design: Design, images: Sequence[NDArray[np.uint8]], folder: Path, *, seed: int, steps: int, progress: Progress
) -> Path:
    """Trains a model on images of any size, goes on from its last checkpoint, and returns the file of its weights."""
    weights = folder / f"{design.name}.safetensors"
    if weights.exists():
        return weights
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    network = UNet(design)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=1e-4)
    parts: dict[str, Any] = {"network": network, "averaged": averaged, "optimiser": optimiser}
    checkpoint, begun = folder / f"{design.name}.checkpoint", 0
    if checkpoint.exists():
        kept = torch.load(checkpoint, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(kept[name])
        begun = kept["step"]
    # A model of crops sees them from whole images, any other one the middle squares.
    whole = design.highest == 1
    seen: Sequence[NDArray[np.uint8]] = list(squared(images, design.side)) if whole else images
    for step in range(begun, steps):
        torch.manual_seed(seed * 1_000_003 + step)
        rng = np.random.default_rng((seed, step))
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 100) * (1 - 0.95 * step / steps)
        x = torch.from_numpy(np.stack([_crop(seen, design.side, rng) for _ in range(16)])).float()[:, None] / 127.5 - 1
        x, noise = x.contiguous(memory_format=torch.channels_last), torch.randn_like(x)
        t = (torch.arange(16) + torch.rand(1)).div(16) * design.highest
        angle = t[:, None, None, None]
        with torch.autocast("cpu", torch.bfloat16):
            told = network(_mixed(x, noise, angle), t).float()
        wanted = torch.cos(angle * math.pi / 2) * noise - torch.sin(angle * math.pi / 2) * x
        loss = (told - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            share = min(_KEPT, (step + 1) / (step + 10))
            for mean, value in zip(averaged.parameters(), network.parameters(), strict=True):
                mean.lerp_(value, 1 - share)
        if (step + 1) % CHECKPOINT_EVERY == 0:
            unfinished = checkpoint.with_suffix(".new")
            torch.save({name: part.state_dict() for name, part in parts.items()} | {"step": step + 1}, unfinished)
            unfinished.replace(checkpoint)
        progress(step + 1, steps)
    save_file({name: value.contiguous() for name, value in averaged.state_dict().items()}, weights)
    checkpoint.unlink(missing_ok=True)
    return weights


def _crop(images: Sequence[NDArray[np.uint8]], side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    image = images[int(rng.integers(len(images)))]
    top, left = (int(rng.integers(length - side + 1)) for length in image.shape)
    crop = image[top : top + side, left : left + side]
    return np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.3 else crop)


class Sampler:
    """A trained model in use, by DDIM steps (arXiv 2010.02502)."""

    def __init__(self, design: Design, weights: Path) -> None:
        self.name, self._side = design.name, design.side
        self._highest = design.highest
        self.factor = design.patch << (len(design.widths) - 1)
        self._network = UNet(design)
        self._network.load_state_dict(load_file(weights))
        self._network.eval()

    def make(self, count: int, seed: int, steps: int = 40) -> Iterator[NDArray[np.uint8]]:
        """count images (side, side) uint8 from noise; of a model that is trained up to pure noise."""
        for number in range(count):
            noise = torch.randn(1, 1, self._side, self._side, generator=_random(seed, number))
            yield _grey(self._walked(noise, _levels(1, steps)))

    def fakes(self, source: str, count: int, seed: int) -> Iterator[Fake]:
        """The same as fakes; source: what the model was trained on."""
        for pixels in self.make(count, seed):
            yield Fake(pixels, "diffusion", self.name, source)

    def remake(self, image: NDArray[np.uint8], strength: float, seed: int, steps: int = 10) -> NDArray[np.uint8]:
        """(H, W) uint8 to the same shape: noise up to level `strength`, 0..1 and at most the trained one, and back."""
        return self.repaint(image, np.ones(image.shape, np.bool_), strength, seed, steps)

    def repaint(
        self, image: NDArray[np.uint8], mask: NDArray[np.bool_], strength: float, seed: int, steps: int = 10
    ) -> NDArray[np.uint8]:
        """The image re-made where `mask` (H, W) is set, and as it was elsewhere."""
        if not 0 < strength <= self._highest:
            raise ValueError(f"strength {strength} is not in 0..{self._highest}, which {self.name} was trained for")
        height, width = image.shape
        padding = [(0, -side % self.factor) for side in image.shape]
        x = torch.from_numpy(np.pad(image, padding, mode="reflect")).float()[None, None] / 127.5 - 1
        inside = torch.from_numpy(np.pad(mask, padding, mode="reflect"))[None, None]
        noise = torch.randn(x.shape, generator=_random(seed, 0))
        levels = _levels(strength, steps)
        made = self._walked(_mixed(x, noise, levels[:1]), levels, None if bool(inside.all()) else (x, noise, inside))
        found = _grey(made)[:height, :width]
        return np.where(mask, found, image)

    def _walked(self, noisy: Tensor, levels: Tensor, kept: tuple[Tensor, Tensor, Tensor] | None = None) -> Tensor:
        """From the first noise level to the last; kept: what stays outside a mask, with its noise."""
        with torch.inference_mode():
            for level, following in pairwise(levels):
                told = self._network(noisy, level[None])
                cosine, sine = torch.cos(level * math.pi / 2), torch.sin(level * math.pi / 2)
                x, noise = cosine * noisy - sine * told, sine * noisy + cosine * told
                noisy = _mixed(x.clamp(-1.05, 1.05), noise, following)
                if kept is not None:
                    noisy = torch.where(kept[2], noisy, _mixed(kept[0], kept[1], following))
        return noisy


def _levels(first: float, steps: int) -> Tensor:
    """Noise levels down to none, the lower the closer: what the last step can't tell from noise it smooths, so it is small."""
    return first * torch.linspace(1, 0, steps + 1).square()


def _random(seed: int, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + number)


def _grey(x: Tensor) -> NDArray[np.uint8]:
    made: NDArray[np.uint8] = ((x[0, 0] + 1) * 127.5).clamp(0, 255).round().to(torch.uint8).numpy()
    return made
