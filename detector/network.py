"""The network: a fully convolutional one on the residuals of an image, whose dense logits are the heat map.

The image first goes through fixed high-pass filters (second differences and the 5x5 "SQUARE" kernel of the spatial rich model,
Fridrich and Kodovsky 2012), truncated, so that content is taken away and traces stay; then through convolutions at full
resolution, two halvings late, and residual blocks. No fully connected layer: any size goes in.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDE = 8
"""Image pixels a logit."""


@dataclass(frozen=True)
class Shape:
    """How wide: channels at full, half, quarter and eighth resolution, and residual blocks at the last three."""

    widths: tuple[int, int, int, int] = (12, 24, 48, 96)
    blocks: tuple[int, int, int] = (1, 2, 2)


def _high_pass() -> Tensor:
    """(5, 1, 5, 5): horizontal, vertical and two diagonal second differences, and the 5x5 kernel; each of about unit gain."""
    filters = torch.zeros(5, 1, 5, 5)
    for number, (y, x) in enumerate(((0, 1), (1, 0), (1, 1), (1, -1))):
        filters[number, 0, 2 - y, 2 - x] = filters[number, 0, 2 + y, 2 + x] = 0.5
        filters[number, 0, 2, 2] = -1
    rich = [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]]
    filters[4, 0] = torch.tensor(rich) / 12
    return filters


class Block(nn.Module):
    """x plus two convolutions of it (arXiv 1512.03385)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = functional.relu(x + self.body(x))
        return out


class Network(nn.Module):
    """(B, 1, H, W) grey in 0..1 to logits (B, 1, H / 8, W / 8), positive where the traces look synthetic."""

    filters: Tensor

    def __init__(self, shape: Shape | None = None) -> None:
        super().__init__()
        widths, blocks = (shape or Shape()).widths, (shape or Shape()).blocks
        self.register_buffer("filters", _high_pass())
        layers: list[nn.Module] = [
            nn.Conv2d(5, widths[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
            nn.Conv2d(widths[0], widths[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        ]
        for inner, outer, count in zip(widths, widths[1:], blocks, strict=False):
            layers += [nn.Conv2d(inner, outer, 3, 2, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()]
            layers += [Block(outer) for _ in range(count)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(widths[-1], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        # A residual of 8 grey levels is as far as one goes: what is an edge of the anatomy says nothing of its maker.
        residual = torch.clamp(functional.conv2d(functional.pad(x, (2, 2, 2, 2), mode="reflect"), self.filters) * 32, -1, 1)
        out: Tensor = self.head(self.body(residual))
        return out
