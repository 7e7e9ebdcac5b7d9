"""Small diffusion models that are trained on the shared radiographs: images from noise, and images re-made from some noise on.

`whole-128` learns whole radiographs of 128 pixels, two by two pixels at a time (a patch becomes four channels), and makes
them from noise. `texture-512` learns crops at full size and re-makes: noise is added to a real image up to a level and taken
away again (SDEdit, arXiv 2108.01073), which keeps the anatomy and makes the fine texture anew, in all of an image or, with
what is around it kept (RePaint, arXiv 2201.09865), in a place of it. Neither has an up-sampling decoder after the last step:
what they leave is a texture rather than a lattice.

The schedule is the cosine one, the target the velocity v (arXiv 2202.00512): x_t = cos(pi t / 2) x + sin(pi t / 2) e. A
radiograph's grain is some four grey levels strong, and noise as faint as that is a small part of the schedule: a model that
meets it seldom, or is asked for it in few plain steps, smooths the grain away. So a share of what is learnt from is drawn
evenly by the logarithm of the noise, and the steps down are even by it too, and of second order (arXiv 2211.01095).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
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
BATCH: Final = 16
FAINTEST: Final = 0.0015
"""The noise level t of the last step, and of the faintest noise that is learnt: a third of a grey level."""
_LOUDEST: Final = 0.995
"""Where steps from pure noise begin: at t = 1 there is nothing of an image to scale up."""
_KEPT: Final = 0.998
_WAVES: Final = 32
_RATE: Final = 1e-3


@dataclass(frozen=True)
class Design:
    """One model. side: of what it is trained on; patch: pixels a side that become channels; highest: the noise level t, 0..1,
    up to which it is trained; faint: the share of what it is trained on whose level is drawn by its logarithm; widths: channels
    at each of its resolutions."""

    name: str
    side: int
    patch: int
    highest: float
    faint: float
    widths: tuple[int, ...]

    @property
    def whole(self) -> bool:
        """Whether it learns whole images up to pure noise, and so makes them from noise."""
        return self.highest == 1


BANK: Final = (
    Design("whole-128", 128, 2, 1.0, 0.25, (32, 64, 96, 128)),
    Design("texture-512", 64, 1, 0.45, 0.6, (24, 48, 64)),
)


class Block(nn.Module):
    """Two convolutions and a way around them; the noise level shifts what is between them."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(8, inner), nn.SiLU(), nn.Conv2d(inner, outer, 3, padding=1))
        self.loudness = nn.Linear(2 * _WAVES, outer)
        self.second = nn.Sequential(nn.GroupNorm(8, outer), nn.SiLU(), nn.Conv2d(outer, outer, 3, padding=1))
        self.around = nn.Conv2d(inner, outer, 1) if inner != outer else nn.Identity()

    def forward(self, x: Tensor, waves: Tensor) -> Tensor:
        out: Tensor = self.around(x) + self.second(self.first(x) + self.loudness(waves)[:, :, None, None])
        return out


class Attention(nn.Module):
    """Each place sees all others: where a whole image is few pixels small, its two sides know of each other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.asked = nn.Conv2d(channels, 3 * channels, 1)
        self.end = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.asked(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, 2)  # (B, h w, C) each
        seen = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = x + self.end(seen.transpose(1, 2).reshape(x.shape))
        return out


class UNet(nn.Module):
    """(B, 1, H, W) noisy about -1..1 and t (B,) to the velocity (B, 1, H, W); sides multiples of `Sampler.factor`."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        widths, self.patch = design.widths, design.patch
        self.start = nn.Conv2d(design.patch**2, widths[0], 3, padding=1)
        self.down = nn.ModuleList(Block(inner, outer) for inner, outer in pairwise((widths[0], *widths)))
        self.middle = Block(widths[-1], widths[-1])
        self.attention = Attention(widths[-1]) if design.whole else nn.Identity()
        self.up = nn.ModuleList(
            Block(below + beside, beside) for below, beside in zip((widths[-1], *widths[:0:-1]), widths[::-1], strict=True)
        )
        self.end = nn.Sequential(nn.GroupNorm(8, widths[0]), nn.SiLU(), nn.Conv2d(widths[0], design.patch**2, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = _loudness(t)[:, None] * torch.exp(torch.linspace(math.log(0.1), math.log(8), _WAVES))
        waves = torch.cat([angles.sin(), angles.cos()], 1)
        x = self.start(functional.pixel_unshuffle(x, self.patch))
        beside = []
        for number, block in enumerate(self.down):
            x = block(functional.avg_pool2d(x, 2) if number else x, waves)
            beside.append(x)
        x = self.attention(self.middle(x, waves))
        for number, block in enumerate(self.up):
            if number:
                x = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = block(torch.cat([x, beside.pop()], 1), waves)
        out: Tensor = functional.pixel_shuffle(self.end(x), self.patch)
        return out


def _loudness(t: Tensor) -> Tensor:
    """The logarithm of how much louder than the image its noise is."""
    angle = t.clamp(FAINTEST / 2, _LOUDEST) * math.pi / 2
    return torch.log(torch.tan(angle))


def _level(loudness: Tensor) -> Tensor:
    """The noise level t of a loudness."""
    return torch.atan(torch.exp(loudness)) * 2 / math.pi


def _mixed(x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    return torch.cos(t * math.pi / 2) * x + torch.sin(t * math.pi / 2) * noise


def train(
    design: Design, images: Sequence[NDArray[np.uint8]], folder: Path, *, seed: int, steps: int, progress: Progress
) -> Path:
    """Trains a model, goes on from its last checkpoint, and returns the file of its weights.

    images: (H, W), of any size; a model of whole images learns the middle square of each.
    """
    weights = folder / f"{design.name}.safetensors"
    if weights.exists():
        return weights
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    network = UNet(design)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), _RATE, weight_decay=1e-4)
    parts: dict[str, Any] = {"network": network, "averaged": averaged, "optimiser": optimiser}
    checkpoint, begun = folder / f"{design.name}.checkpoint", 0
    if checkpoint.exists():
        kept = torch.load(checkpoint, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(kept[name])
        begun = kept["step"]
    # Squares are cut a little, each time elsewhere: some hundred images would be learnt by heart.
    seen: Sequence[NDArray[np.uint8]] = list(squared(images, design.side * 17 // 16)) if design.whole else images
    for step in range(begun, steps):
        torch.manual_seed(seed * 1_000_003 + step)
        rng = np.random.default_rng((seed, step))
        for group in optimiser.param_groups:
            group["lr"] = _RATE * min(1.0, (step + 1) / 100) * (1 - 0.95 * step / steps)
        x = torch.from_numpy(np.stack([_crop(seen, design.side, rng) for _ in range(BATCH)])).float()[:, None] / 127.5 - 1
        x, noise = x.contiguous(memory_format=torch.channels_last), torch.randn_like(x)
        t = _drawn(design)
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


def _drawn(design: Design) -> Tensor:
    """A batch of noise levels, spread: some evenly by their logarithm, the others evenly."""
    faint = round(BATCH * design.faint)
    low, high = _loudness(torch.tensor([FAINTEST, min(design.highest, 0.5)]))
    by_logarithm = low + (high - low) * (torch.arange(faint) + torch.rand(1)) / faint
    evenly = design.highest * (torch.arange(BATCH - faint) + torch.rand(1)) / (BATCH - faint)
    return torch.cat([_level(by_logarithm), evenly])


def _crop(images: Sequence[NDArray[np.uint8]], side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    image = images[int(rng.integers(len(images)))]
    top, left = (int(rng.integers(length - side + 1)) for length in image.shape)
    crop = image[top : top + side, left : left + side]
    return np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.3 else crop)


class Sampler:
    """A trained model in use."""

    def __init__(self, design: Design, weights: Path) -> None:
        self.name, self._side = design.name, design.side
        self._highest = design.highest
        self.factor = design.patch << (len(design.widths) - 1)
        self._network = UNet(design)
        self._network.load_state_dict(load_file(weights))
        self._network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def make(self, count: int, seed: int, steps: int = 40) -> Iterator[NDArray[np.uint8]]:
        """count images (side, side) uint8 from noise; of a model that is trained up to pure noise."""
        for number in range(count):
            noise = torch.randn(1, 1, self._side, self._side, generator=_random(seed, number))
            yield _grey(denoised(self._network, noise, levels(1, steps)))

    def fakes(self, source: str, count: int, seed: int) -> Iterator[Fake]:
        """The same as fakes; source: what the model was trained on."""
        for pixels in self.make(count, seed):
            yield Fake(pixels, "diffusion", self.name, source)

    def remake(self, image: NDArray[np.uint8], strength: float, seed: int, steps: int = 10) -> NDArray[np.uint8]:
        """(H, W) uint8 to the same shape: noise up to level `strength`, over FAINTEST and at most the trained one, and back."""
        return self.repaint(image, np.ones(image.shape, np.bool_), strength, seed, steps)

    def repaint(
        self, image: NDArray[np.uint8], mask: NDArray[np.bool_], strength: float, seed: int, steps: int = 10
    ) -> NDArray[np.uint8]:
        """The image re-made where `mask` (H, W) is set, and as it was elsewhere."""
        if not FAINTEST < strength <= self._highest:
            raise ValueError(f"strength {strength} is not in {FAINTEST}..{self._highest}, which {self.name} was trained for")
        height, width = image.shape
        padding = [(0, -side % self.factor) for side in image.shape]
        x = torch.from_numpy(np.pad(image, padding, mode="reflect")).float()[None, None] / 127.5 - 1
        inside = torch.from_numpy(np.pad(mask, padding, mode="reflect"))[None, None]
        noise = torch.randn(x.shape, generator=_random(seed, 0))
        down = levels(strength, steps)
        kept = None if bool(inside.all()) else (x, noise, inside)
        found = _grey(denoised(self._network, _mixed(x, noise, down[:1]), down, kept))[:height, :width]
        return np.where(mask, found, image)


def levels(first: float, steps: int) -> Tensor:
    """steps + 1 noise levels, from the first down to FAINTEST evenly by their logarithm, and none."""
    loud, faint = _loudness(torch.tensor([first, FAINTEST]))
    return torch.cat([_level(torch.linspace(float(loud), float(faint), steps)), torch.zeros(1)])


def denoised(
    velocity: Callable[[Tensor, Tensor], Tensor],
    noisy: Tensor,
    down: Tensor,
    kept: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor:
    """From noise at the first of the levels `down` to the image at the last, by DPM-Solver++(2M) (arXiv 2211.01095).

    velocity: (x, t) to v, as `UNet`. kept: an image, its noise, and the mask outside of which it stays: there the noisy image
    is put back at each level.
    """
    before: tuple[Tensor, Tensor] | None = None
    with torch.inference_mode():
        for level, following in pairwise(down):
            cosine, sine = torch.cos(level * math.pi / 2), torch.sin(level * math.pi / 2)
            x = (cosine * noisy - sine * velocity(noisy, level[None])).clamp(-1.05, 1.05)
            if following == 0:
                noisy = x
            else:
                step = _loudness(level) - _loudness(following)
                aimed = x if before is None else x + (x - before[0]) * step / before[1] / 2
                before = x, step
                quieter = torch.sin(following * math.pi / 2) / sine
                noisy = quieter * noisy - torch.cos(following * math.pi / 2) * torch.expm1(-step) * aimed
            if kept is not None:
                noisy = torch.where(kept[2], noisy, _mixed(kept[0], kept[1], following))
    return noisy


def _random(seed: int, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + number)


def _grey(x: Tensor) -> NDArray[np.uint8]:
    made: NDArray[np.uint8] = ((x[0, 0] + 1) * 127.5).clamp(0, 255).round().to(torch.uint8).numpy()
    return made
