"""What a maker of fakes gives, and the folder that keeps it: PNG files beside one `manifest.csv`.

The folder is made to be gone on with: a generator's fakes are written first and listed after, so what the manifest lists is
there, and `FakeFolder.has` tells which generators are done.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Family = Literal["gan", "diffusion", "autoencoder", "superresolution", "tampering"]
FAMILIES: tuple[Family, ...] = ("gan", "diffusion", "autoencoder", "superresolution", "tampering")
_COLUMNS = ("name", "family", "generator", "source", "parent", "mask")


@dataclass(frozen=True, eq=False)
class Fake:
    """One image that a generator made, or changed in the pixels of `mask`.

    pixels: (H, W) uint8. source: the real data set that it was derived from, or its generator was trained on. parent: the
    patient whose image it was derived from, None for an image made from noise. mask: (H, W) bool, None if all of it is made.
    """

    pixels: NDArray[np.uint8]
    family: Family
    generator: str
    source: str
    parent: str | None = None
    mask: NDArray[np.bool_] | None = None


class FakeFolder:
    """Fakes on disk. Not for several writers at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._manifest = folder / "manifest.csv"

    def has(self, generator: str) -> bool:
        """Whether all of a generator's fakes are here."""
        return any(row["generator"] == generator for row in self._rows())

    def add(self, fakes: Iterable[Fake]) -> int:
        """Writes one generator's fakes, all or (after a crash) none; how many they were."""
        self._folder.mkdir(parents=True, exist_ok=True)
        rows: list[dict[str, str]] = []
        for number, fake in enumerate(fakes):
            name = f"{fake.family}-{fake.generator}-{number:05d}.png"
            Image.fromarray(fake.pixels).save(self._folder / name)
            mask = ""
            if fake.mask is not None:
                mask = name.removesuffix(".png") + "-mask.png"
                Image.fromarray(fake.mask.astype(np.uint8) * 255).save(self._folder / mask)
            rows.append(
                {
                    "name": name,
                    "family": fake.family,
                    "generator": fake.generator,
                    "source": fake.source,
                    "parent": fake.parent or "",
                    "mask": mask,
                }
            )
        whole = [*self._rows(), *rows]
        unfinished = self._manifest.with_suffix(".new")
        with unfinished.open("w", newline="") as file:
            writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(whole)
        unfinished.replace(self._manifest)
        return len(rows)

    def __iter__(self) -> Iterator[Fake]:
        for row in self._rows():
            mask = np.asarray(Image.open(self._folder / row["mask"])) > 127 if row["mask"] else None
            pixels = np.asarray(Image.open(self._folder / row["name"]).convert("L"))
            family = next(known for known in FAMILIES if known == row["family"])
            yield Fake(pixels, family, row["generator"], row["source"], row["parent"] or None, mask)

    def _rows(self) -> list[dict[str, str]]:
        if not self._manifest.exists():
            return []
        with self._manifest.open(newline="") as file:
            return list(csv.DictReader(file))
