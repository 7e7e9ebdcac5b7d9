"""Autoencoders whose decoders leave different traces: each re-makes a real radiograph, so that content is equal and only the
decoder's traces differ.

The bank varies what a decoder can differ in: its up-sampling (transposed convolutions of three kinds, pixel shuffle, nearest,
bilinear), the factor of reduction, a continuous or a quantised latent (VQ), noise as an input, and its loss. Modern decoders
lose little: so most of the bank has a wide latent, and what it makes is as grainy as life. Some of it learns against a patch
discriminator. An autoencoder that learnt nothing is refused (`NotLearnt`): its fakes would teach that fakes are flat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

Progress = Callable[[int, int], None]
CROP = 128
BATCH = 8
CHECKPOINT_EVERY = 250
_RATE = 1e-3
_ENOUGH = 200
"""Steps from which an autoencoder is expected to have learnt."""
_ADVERSARIAL = 0.004
_PENALTY = 1.0


@dataclass(frozen=True)
class Design:
    """One member of the bank. upsampling: t4, t3, t2 (transposed convolutions by kernel), shuffle, nearest, bilinear."""

    name: str
    upsampling: str
    factor: int
    adversarial: bool
    quantised: bool = False
    noisy: bool = False
    latent: int = 16
    width: int = 24


BANK = (
    Design("t4-f8", "t4", 8, adversarial=False, latent=48),
    Design("nearest-f8", "nearest", 8, adversarial=False, noisy=True, latent=48),
    Design("shuffle-f8-adv", "shuffle", 8, adversarial=True, latent=32),
    Design("nearest-f8-adv", "nearest", 8, adversarial=True, latent=24),
    Design("t3-f4-adv", "t3", 4, adversarial=True, noisy=True, latent=8),
    Design("bilinear-f4-vq-adv", "bilinear", 4, adversarial=True, quantised=True, latent=8),
    Design("t2-f4", "t2", 4, adversarial=False, latent=12),
    Design("shuffle-f2", "shuffle", 2, adversarial=False, latent=3),
)
WORST = 8.0
"""Grey levels, the mean error on the images it learnt from, beyond which an autoencoder has not learnt."""


class NotLearnt(Exception):
    """The autoencoder does not give back what it is given: train it with another seed, or for more steps."""


class Noise(nn.Module):
    """Adds fresh noise, as strong for each channel as it learnt."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.full((1, channels, 1, 1), 0.05))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.strength * torch.randn_like(x[:, :1])


class Quantiser(nn.Module):
    """Nearest code of a book of 512, straight-through (VQ-VAE, arXiv 1711.00937); the commitment loss is kept in `loss`."""

    def __init__(self, channels: int, codes: int = 512) -> None:
        super().__init__()
        self.book = nn.Parameter(torch.randn(codes, channels) * 0.5)
        self.loss = torch.zeros(())

    def forward(self, z: Tensor) -> Tensor:  # (B, C, h, w)
        flat = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])  # (B h w, C)
        codes = self.book[torch.cdist(flat, self.book).argmin(1)]
        self.loss = (codes - flat.detach()).square().mean() + 0.25 * (codes.detach() - flat).square().mean()
        chosen = flat + (codes - flat).detach()
        return chosen.reshape(z.shape[0], z.shape[2], z.shape[3], -1).permute(0, 3, 1, 2)


class Residual(nn.Module):
    """x plus two convolutions of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class Upsample(nn.Module):
    """Twice the sides, in the way whose traces are wanted."""

    def __init__(self, kind: str, inner: int, outer: int) -> None:
        super().__init__()
        self.layer: nn.Module
        match kind:
            case "t4":
                self.layer = nn.ConvTranspose2d(inner, outer, 4, 2, 1)
            case "t3":
                self.layer = nn.ConvTranspose2d(inner, outer, 3, 2, 1, 1)
            case "t2":
                self.layer = nn.ConvTranspose2d(inner, outer, 2, 2)
            case "shuffle":
                self.layer = nn.Sequential(nn.Conv2d(inner, outer * 4, 3, padding=1), nn.PixelShuffle(2))
            case "nearest" | "bilinear":
                self.layer = nn.Sequential(nn.Upsample(scale_factor=2, mode=kind), nn.Conv2d(inner, outer, 3, padding=1))
            case _:
                raise ValueError(f"no up-sampling is called {kind}")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class Autoencoder(nn.Module):
    """(B, 1, H, W) in 0..1 to the same shape; H and W multiples of the design's factor."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.name = design.name
        halvings = design.factor.bit_length() - 1
        widths = [min(design.width * 2**level, 96) for level in range(halvings + 1)]
        encoder: list[nn.Module] = [nn.Conv2d(1, widths[0], 3, padding=1)]
        for inner, outer in pairwise(widths):
            encoder += [nn.SiLU(), nn.Conv2d(inner, outer, 4, 2, 1)]
        encoder += [Residual(widths[-1]), nn.Conv2d(widths[-1], design.latent, 3, padding=1)]
        decoder: list[nn.Module] = [nn.Conv2d(design.latent, widths[-1], 3, padding=1), Residual(widths[-1])]
        for inner, outer in pairwise(widths[::-1]):
            decoder += [Upsample(design.upsampling, inner, outer), Residual(outer)]
            if design.noisy:
                decoder.append(Noise(outer))
        last = nn.Conv2d(widths[0], 1, 3, padding=1)
        if last.bias is not None:
            nn.init.constant_(last.bias, 0.4)  # a radiograph's mean
        decoder += [nn.SiLU(), last]
        self.encoder = nn.Sequential(*encoder)
        self.quantiser = Quantiser(design.latent) if design.quantised else None
        self.decoder = nn.Sequential(*decoder)

    def forward(self, x: Tensor) -> Tensor:
        z = self.encoder(x)
        out: Tensor = self.decoder(z if self.quantiser is None else self.quantiser(z))
        return out


def _discriminator() -> nn.Module:
    """Judges patches of some 20 pixels (PatchGAN, arXiv 1611.07004)."""
    layers: list[nn.Module] = []
    for inner, outer, stride in ((1, 24, 1), (24, 48, 2), (48, 64, 2), (64, 64, 1)):
        layers += [nn.Conv2d(inner, outer, 4 if stride == 2 else 3, stride, 1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(64, 1, 3, padding=1))


def _penalty(judge: nn.Module, real: Tensor) -> Tensor:
    """How steep the discriminator is at real crops (R1, arXiv 1801.04406)."""
    seen = real.clone().requires_grad_(True)
    slope: Tensor = torch.autograd.grad(judge(seen).mean((1, 2, 3)).sum(), seen, create_graph=True)[0]
    return _PENALTY * slope.square().sum((1, 2, 3)).mean()


def _edges(x: Tensor) -> Tensor:
    return torch.cat([(x[..., 1:, :-1] - x[..., :-1, :-1]), (x[..., :-1, 1:] - x[..., :-1, :-1])], 1)


def train(
    design: Design,
    images: Sequence[NDArray[np.uint8]],
    folder: Path,
    *,
    seed: int,
    steps: int,
    progress: Progress,
) -> Path:
    """Trains one autoencoder on crops of 128 pixels, goes on from its last checkpoint, and returns the file of its weights."""
    weights = folder / f"{design.name}.safetensors"
    if weights.exists():
        return weights
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    network, judge = Autoencoder(design), _discriminator()
    optimiser = torch.optim.AdamW(network.parameters(), _RATE, betas=(0.8, 0.99), weight_decay=1e-4)
    critic = torch.optim.AdamW(judge.parameters(), 5e-4, betas=(0.5, 0.99))
    for part in (network, judge):
        part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parts: dict[str, Any] = {"network": network, "judge": judge, "optimiser": optimiser, "critic": critic}
    checkpoint = folder / f"{design.name}.checkpoint"
    begun = 0
    if checkpoint.exists():
        kept = torch.load(checkpoint, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(kept[name])
        begun = kept["step"]
    for step in range(begun, steps):
        # Random numbers are a step's own, so that a run that goes on sees what an uninterrupted one would.
        rng = np.random.default_rng((seed, step))
        torch.manual_seed(seed * 1_000_003 + step)
        for group in optimiser.param_groups:
            group["lr"] = _RATE * min(1.0, (step + 1) / 100) * (1 - 0.95 * step / steps)
        crops = np.stack([_crop(images, rng) for _ in range(BATCH)])[:, None]
        real = (torch.from_numpy(crops).float() / 255).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            made = network(real)
            difference = (made - real).float()
            loss = difference.abs().mean() + 2 * _edges(difference).abs().mean()
            if network.quantiser is not None:
                loss = loss + network.quantiser.loss
            if design.adversarial and step > steps // 4:
                loss = loss + _ADVERSARIAL * functional.softplus(-judge(made).float()).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        if design.adversarial and step > steps // 5:
            with torch.autocast("cpu", torch.bfloat16):
                told = judge(torch.cat([real, made.detach()])).float()
            cost = functional.softplus(-told[:BATCH]).mean() + functional.softplus(told[BATCH:]).mean()
            if step % 8 == 0:
                cost = cost + 8 * _penalty(judge, real)
            critic.zero_grad()
            cost.backward()  # type: ignore[no-untyped-call]
            critic.step()
        if (step + 1) % CHECKPOINT_EVERY == 0:
            _save(checkpoint, {name: part.state_dict() for name, part in parts.items()} | {"step": step + 1})
        progress(step + 1, steps)
    if steps >= _ENOUGH:
        _check(network.eval(), images)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, weights)
    checkpoint.unlink(missing_ok=True)
    return weights


def _check(network: Autoencoder, images: Sequence[NDArray[np.uint8]]) -> None:
    errors = []
    for image in images[:: max(1, len(images) // 8)]:
        real = torch.from_numpy(image[:256, :256]).float()[None, None] / 255
        with torch.inference_mode():
            errors.append(255 * float((network(real).clamp(0, 1) - real).abs().mean()))
    if np.mean(errors) > WORST:
        raise NotLearnt(f"{network.name} gives images back with a mean error of {np.mean(errors):.0f} grey levels")


def _save(path: Path, state: dict[str, object]) -> None:
    unfinished = path.with_suffix(".new")
    torch.save(state, unfinished)
    unfinished.replace(path)


def _crop(images: Sequence[NDArray[np.uint8]], rng: np.random.Generator) -> NDArray[np.uint8]:
    image = images[int(rng.integers(len(images)))]
    top, left = (int(rng.integers(side - CROP + 1)) for side in image.shape)
    crop = image[top : top + CROP, left : left + CROP]
    return np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.5 else crop)


class Remaker:
    """A trained member of the bank: an image to the same image re-made."""

    def __init__(self, design: Design, weights: Path) -> None:
        self.name, self._factor = design.name, design.factor
        self._network = Autoencoder(design)
        self._network.load_state_dict(load_file(weights))
        self._network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W) uint8 to (H, W) uint8; sides that are no multiple of the factor are mirrored up and cut again."""
        height, width = image.shape
        padded = np.pad(image, [(0, -side % self._factor) for side in image.shape], mode="reflect")
        with torch.inference_mode():
            made = self._network(torch.from_numpy(padded).float()[None, None] / 255)[0, 0]
        whole: NDArray[np.uint8] = (made.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        return whole[:height, :width]
