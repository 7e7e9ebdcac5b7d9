"""What is no chest radiograph, drawn by geometry or taken from parts of real ones: the other side that the scope is fitted to.

No radiographs of other body parts are in the data, so bones are capsules here and soft tissue is what surrounds them; thickness
times density, blurred and grained, makes the picture. That is crude, and is called simulated wherever it is counted. What makes
it work is `anatomy`, which throws bones together at random: a scope fitted to it refuses hands and spines it never saw.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Grey = NDArray[np.uint8]
Plane = NDArray[np.float64]
Random = np.random.Generator
Maker = Callable[[Random], Grey]

SIDE: Final = 256
_MIDDLE: Final = SIDE / 2
_Y, _X = (axis.astype(np.float64) for axis in np.mgrid[0:SIDE, 0:SIDE])
Point = tuple[float, float]


def blurred(plane: Plane, sigma: float) -> Plane:
    """A Gaussian blur of `sigma` pixels, in the frequency domain (the borders are joined)."""
    rows, columns = np.fft.fftfreq(plane.shape[0]), np.fft.rfftfreq(plane.shape[1])
    gain = np.exp(-2 * (np.pi * sigma) ** 2 * (rows[:, None] ** 2 + columns[None] ** 2))
    return np.asarray(np.fft.irfft2(np.fft.rfft2(plane) * gain, plane.shape))


def texture(rng: Random, sigma: float, shape: tuple[int, int] = (SIDE, SIDE)) -> Plane:
    """Blurred noise of mean 0 and deviation 1."""
    plane = blurred(rng.normal(size=shape), sigma)
    return np.asarray((plane - plane.mean()) / max(float(plane.std()), 1e-9))


class Body:
    """Tissue and bone as thickness in pixels, seen from the front."""

    def __init__(self, tissue: float = 0) -> None:
        self.tissue = np.full((SIDE, SIDE), float(tissue))
        self.bone = np.zeros((SIDE, SIDE))

    def flesh(self, start: Point, end: Point, radius: float, end_radius: float | None = None, density: float = 1) -> None:
        np.maximum(self.tissue, density * _capsule(start, end, radius, end_radius), out=self.tissue)

    def gas(self, start: Point, end: Point, radius: float, density: float = 1) -> None:
        self.tissue -= density * _capsule(start, end, radius)

    def shaft(self, start: Point, end: Point, radius: float, end_radius: float | None = None, marrow: float = 0.75) -> None:
        """A bone with a dense rim."""
        inner = None if end_radius is None else marrow * end_radius
        hollow = _capsule(start, end, radius, end_radius) - 0.6 * _capsule(start, end, marrow * radius, inner)
        np.maximum(self.bone, hollow, out=self.bone)

    def knob(self, start: Point, end: Point, radius: float, density: float = 0.65) -> None:
        np.maximum(self.bone, density * _capsule(start, end, radius), out=self.bone)

    def block(self, centre: Point, half: Point, density: float = 26) -> None:
        """A vertebra's body: a box with a rim."""
        inside = np.maximum(np.abs(_Y - centre[0]) - half[0], np.abs(_X - centre[1]) - half[1])
        self.bone += density * (np.clip(0.5 - inside / 2, 0, 1) + 0.5 * np.exp(-((inside + 1) ** 2) / 3))

    def radiograph(self, rng: Random, tissue_density: float = 0.008) -> Grey:
        """Bright bones, grain, perhaps collimated, lettered, turned a little."""
        plane = tissue_density * np.clip(self.tissue, 0, None) + 0.03 * self.bone
        plane = blurred(plane, 1) + 0.15 * blurred(plane, 20)
        plane = plane * (1 + 0.04 * texture(rng, 3)) + 0.01 * rng.normal(size=plane.shape) * max(float(plane.max()), 1e-3)
        if rng.random() < 0.5:
            plane = 1 - np.exp(-plane * rng.uniform(0.15, 0.9) / max(float(np.abs(plane).mean()), 1e-3))
        grey = _levels(plane, rng.uniform(0.6, 1.5))
        if rng.random() < 0.4:
            top, bottom, left, right = rng.integers(5, 40, 4)
            field = np.zeros_like(grey)
            field[top : SIDE - bottom, left : SIDE - right] = grey[top : SIDE - bottom, left : SIDE - right]
            grey = field
        picture = Image.fromarray(grey)
        if rng.random() < 0.5:
            place = tuple(int(value) for value in rng.integers(5, 240, 2))
            ImageDraw.Draw(picture).text((place[0], place[1]), "RL"[int(rng.integers(2))], fill=255)
        return np.asarray(picture.rotate(rng.uniform(-12, 12), fillcolor=int(grey[0, 0])))


def _capsule(start: Point, end: Point, radius: float, end_radius: float | None = None) -> Plane:
    """How thick a rod with round ends is along each ray, (SIDE, SIDE)."""
    along = (end[0] - start[0], end[1] - start[1])
    square = max(along[0] ** 2 + along[1] ** 2, 1e-6)
    share = np.clip(((_Y - start[0]) * along[0] + (_X - start[1]) * along[1]) / square, 0, 1)
    apart = (_Y - start[0] - share * along[0]) ** 2 + (_X - start[1] - share * along[1]) ** 2
    reach = radius + share * ((radius if end_radius is None else end_radius) - radius)
    return np.asarray(2 * np.sqrt(np.clip(reach**2 - apart, 0, None)))


def _levels(plane: Plane, gamma: float = 1) -> Grey:
    low, high = np.percentile(plane, [0.5, 99.8])
    grey = np.clip((plane - low) / max(float(high - low), 1e-9), 0, 1) ** gamma
    return np.asarray(np.rint(255 * grey), np.uint8)


# ---- body parts -------------------------------------------------------------------------------------------------------


def hand(rng: Random) -> Grey:
    body = Body()
    size, middle, wrist = rng.uniform(0.85, 1.15), _MIDDLE + rng.uniform(-12, 12), 190 + rng.uniform(-10, 20)
    body.flesh((wrist, middle), (SIDE + 40, middle), 30 * size, 34 * size, 0.8)
    body.flesh((wrist - 60 * size, middle), (wrist, middle), 42 * size, 36 * size, 0.7)
    body.shaft((wrist + 12, middle - 12 * size), (SIDE + 30, middle - 14 * size), 9 * size)
    body.shaft((wrist + 14, middle + 14 * size), (SIDE + 30, middle + 13 * size), 7 * size)
    for number in range(8):
        place = (wrist - 4 + rng.uniform(-9, 9), middle + (number - 3.5) * 7 * size)
        body.knob(place, (place[0] + 2, place[1]), 7 * size)
    for finger, (angle, length) in enumerate(zip((-55, -18, -4, 9, 22), (60, 78, 86, 78, 60), strict=True)):
        turn = np.deg2rad(angle + rng.uniform(-4, 4))
        root = (wrist - 12, middle + (finger - 2) * 11 * size)
        joints = (0, 0.55, 1.0, 1.3, 1.5) if finger else (0, 0.5, 0.9, 1.25)
        reach = 1.1 * length * size

        def at(share: float, root: Point = root, turn: float = turn, reach: float = reach) -> Point:
            return root[0] - share * reach * float(np.cos(turn)), root[1] + share * reach * float(np.sin(turn))

        body.flesh(root, at(joints[-1]), 11 * size, 8 * size)
        for first, second in itertools.pairwise(joints):
            body.shaft(at(first + 0.03), at(second - 0.03), 4.6 * size * (1 - 0.25 * first))
            for end in (first + 0.03, second - 0.03):
                body.knob(at(end), at(end), 6 * size * (1 - 0.2 * first))
    return body.radiograph(rng)


def foot(rng: Random) -> Grey:
    return np.ascontiguousarray(hand(rng)[::-1])


def knee(rng: Random) -> Grey:
    body = Body()
    both = rng.random() < 0.3
    for middle in (70.0, 186.0) if both else (_MIDDLE + rng.uniform(-20, 20),):
        size, joint = 0.6 if both else rng.uniform(0.9, 1.3), _MIDDLE + rng.uniform(-10, 10)
        body.flesh((-40, middle), (SIDE + 40, middle), 78 * size, 58 * size)
        body.shaft((-30, middle), (joint - 45 * size, middle), 22 * size, 24 * size)
        body.knob((joint - 28 * size, middle - 24 * size), (joint - 26 * size, middle + 24 * size), 27 * size)
        body.knob((joint + 22 * size, middle - 28 * size), (joint + 22 * size, middle + 28 * size), 19 * size)
        body.shaft((joint + 35 * size, middle), (SIDE + 30, middle), 20 * size, 17 * size)
        body.shaft((joint + 40 * size, middle + 40 * size), (SIDE + 30, middle + 36 * size), 8 * size)
    return body.radiograph(rng)


def limb(rng: Random) -> Grey:
    """A forearm, a shin or an upper arm."""
    body = Body()
    middle, size = _MIDDLE + rng.uniform(-30, 30), rng.uniform(0.7, 1.3)
    body.flesh((-30, middle), (SIDE + 30, middle + rng.uniform(-30, 30)), 60 * size, 44 * size)
    body.shaft((-30, middle - 14 * size), (SIDE + 30, middle - 16 * size), 15 * size)
    if rng.random() < 0.7:
        body.shaft((-30, middle + 20 * size), (SIDE + 30, middle + 18 * size), 9 * size)
    return body.radiograph(rng)


def spine(rng: Random) -> Grey:
    """From the front: neck, thorax without its lungs, or loins with bowel and pelvis."""
    body = Body(tissue=110)
    body.flesh((-60, _MIDDLE), (SIDE + 60, _MIDDLE), 150, density=0.9)
    loins = rng.random() < 0.7
    count, middle, curve = int(rng.integers(5, 9)), _MIDDLE + rng.uniform(-10, 10), rng.uniform(-18, 18)
    height = SIDE / count
    width = float(np.clip(height * rng.uniform(0.4, 0.8), 16, 34))
    for number in range(-1, count + 1):
        row, column = (number + 0.5) * height, middle + curve * float(np.sin(np.pi * number / count))
        body.block((row, column), (0.38 * height, width))
        body.knob((row + 6, column), (row + 16, column), 4, 1.2)
        for side in (-1, 1):
            body.knob((row - 3, column + 0.55 * side * width), (row - 3, column + 0.55 * side * width), 5, 1.2)
            if loins:
                body.knob((row, column + side * width), (row - 4, column + 1.9 * side * width), 4.5, 1.2)
    if loins and rng.random() < 0.6:
        for side in (-1, 1):
            body.knob((SIDE - 40, middle + 55 * side), (SIDE + 10, middle + 100 * side), 34, 0.35)
    for _ in range(rng.integers(0, 9)):
        place = (rng.uniform(40, SIDE - 30), rng.uniform(20, SIDE - 20))
        body.gas(place, (place[0] + rng.uniform(-15, 15), place[1] + rng.uniform(-15, 15)), rng.uniform(5, 16))
    return body.radiograph(rng)


def side_spine(rng: Random) -> Grey:
    body = Body(tissue=60)
    body.flesh((-60, 120), (SIDE + 60, 140), 110, density=0.9)
    count = int(rng.integers(5, 8))
    for number in range(-1, count + 1):
        row = (number + 0.5) * SIDE / count
        column = _MIDDLE + 22 * float(np.sin(1.2 * np.pi * number / count)) + rng.uniform(-2, 2)
        body.block((row, column), (0.37 * SIDE / count, 26))
        body.knob((row, column + 30), (row + 14, column + 62), 6, 1.4)
    return body.radiograph(rng)


def abdomen(rng: Random) -> Grey:
    return _levels(spine(rng) + 25 * texture(rng, 14))


def pelvis(rng: Random) -> Grey:
    body = Body(tissue=70)
    body.flesh((-60, _MIDDLE), (SIDE + 60, _MIDDLE), 150, density=0.7)
    size = rng.uniform(0.9, 1.1)
    for side in (-size, size):
        body.knob((60, _MIDDLE + 70 * side), (130, _MIDDLE + 62 * side), 34, 0.35)
        body.knob((140, _MIDDLE + 72 * side), (142, _MIDDLE + 74 * side), 22, 0.6)
        for start, end, radius in (
            ((140, 75), (165, 100), 13),
            ((165, 100), (SIDE + 30, 92), 15),
            ((160, 20), (150, 60), 9),
            ((165, 15), (205, 48), 9),
            ((205, 48), (160, 66), 9),
        ):
            body.shaft((start[0], _MIDDLE + start[1] * side), (end[0], _MIDDLE + end[1] * side), radius)
    body.knob((-20, _MIDDLE), (110, _MIDDLE), 20, 0.8)
    return body.radiograph(rng)


def skull(rng: Random) -> Grey:
    body = Body()
    lean = rng.uniform(-15, 15)
    body.flesh((105, _MIDDLE), (125, _MIDDLE + lean), 95)
    body.flesh((180, 120), (SIDE + 60, 110), 50)
    body.shaft((105, _MIDDLE), (125, _MIDDLE + lean / 2), rng.uniform(84, 94), marrow=0.92)
    body.knob((190, 118), (215, 118), 44, 0.35)
    for side in (-1, 1):
        body.shaft((140, 120 + 32 * side), (140, 120 + 32 * side), 20, marrow=0.9)
    return body.radiograph(rng)


def torso(rng: Random) -> Grey:
    """Round flesh without anything in it: a chest is not told by its outline alone."""
    body = Body()
    body.flesh((100, _MIDDLE), (160, _MIDDLE + rng.uniform(-10, 10)), rng.uniform(70, 110))
    return body.radiograph(rng)


def anatomy(rng: Random) -> Grey:
    """Flesh, bones, gas and perhaps a column of vertebrae thrown together, mirrored half of the time."""
    body = Body(tissue=rng.uniform(20, 120) if rng.random() < 0.5 else 0)
    sides = (1, -1) if rng.random() < 0.5 else (1,)

    def anywhere() -> Point:
        row, column = rng.uniform(-40, SIDE + 40, 2)
        return float(row), float(column)

    def mirrored(point: Point, side: int) -> Point:
        return point[0], _MIDDLE + side * (point[1] - _MIDDLE)

    for _ in range(rng.integers(0, 5)):
        start, end, (radius, end_radius), density = anywhere(), anywhere(), rng.uniform(15, 110, 2), rng.uniform(0.3, 1)
        for side in sides:
            body.flesh(mirrored(start, side), mirrored(end, side), radius, end_radius, density)
    for _ in range(rng.integers(1, 12)):
        start, reach = anywhere(), rng.choice([15, 60, 150])
        end = (start[0] + reach * float(rng.normal()), start[1] + reach * float(rng.normal()))
        (radius, end_radius), marrow = rng.uniform(4, 32, 2), rng.uniform(0.4, 0.9)
        for side in sides:
            body.shaft(mirrored(start, side), mirrored(end, side), radius, end_radius, marrow)
    for _ in range(rng.integers(0, 6)):
        start, radius = anywhere(), rng.uniform(5, 18)
        end = (start[0] + 12 * float(rng.normal()), start[1] + 12 * float(rng.normal()))
        for side in sides:
            body.gas(mirrored(start, side), mirrored(end, side), radius)
    if rng.random() < 0.35:
        count, middle, curve = int(rng.integers(3, 12)), _MIDDLE + 40 * float(rng.normal()), rng.uniform(-40, 40)
        half, density = (rng.uniform(0.25, 0.45) * SIDE / count, rng.uniform(10, 45)), rng.uniform(8, 30)
        for number in range(-1, count + 1):
            body.block(((number + 0.5) * SIDE / count, middle + curve * float(np.sin(np.pi * number / count))), half, density)
    made = body.radiograph(rng, rng.uniform(0.004, 0.02))
    return made if rng.random() < 0.6 else np.ascontiguousarray(np.rot90(made, int(rng.integers(4))))


# ---- no radiographs at all --------------------------------------------------------------------------------------------


def page(rng: Random) -> Grey:
    picture = Image.new("L", (350, 450), 255)
    draw = ImageDraw.Draw(picture)
    for row in range(20, 430, 11):
        if rng.random() < 0.9:
            letters = rng.choice(list("abcdefghijklmnopqrstuvwxyz     "), int(rng.integers(15, 50)))
            draw.text((20, row), "".join(letters), fill=0)
    return np.asarray(picture)


def screenshot(rng: Random) -> Grey:
    dark = rng.random() < 0.5
    picture = Image.new("L", (640, 400), 30 if dark else 245)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, 640, 20), fill=90)
    draw.rectangle((0, 20, 110, 400), fill=int(rng.integers(50, 200)))
    for _ in range(rng.integers(2, 9)):
        x, y, width, height = (int(value) for value in rng.integers((120, 30, 20, 15), (500, 300, 200, 150)))
        draw.rectangle((x, y, x + width, y + height), fill=int(rng.integers(256)), outline=128)
    for number in range(40):
        x, y = (int(value) for value in rng.integers((5, 2), (600, 390)))
        draw.text((x, y), f"Item {number}", fill=int(rng.integers(256)))
    return np.asarray(picture)


def drawing(rng: Random) -> Grey:
    """Lines and curves on paper, plots among them."""
    picture = Image.new("L", (SIDE, SIDE), 255)
    draw = ImageDraw.Draw(picture)
    if rng.random() < 0.4:
        draw.rectangle((30, 20, 240, 220), outline=0)
        for _ in range(rng.integers(1, 4)):
            walk = np.clip(120 + np.cumsum(rng.normal(size=210) * 4), 21, 219)
            draw.line([(31 + x, float(y)) for x, y in enumerate(walk)], fill=int(rng.integers(160)), width=2)
    else:
        for _ in range(rng.integers(5, 40)):
            corners = rng.integers(0, SIDE, (4, 2)).tolist()
            draw.line([(x, y) for x, y in corners], fill=int(rng.integers(160)), width=int(rng.integers(1, 5)))
        for _ in range(rng.integers(0, 6)):
            x, y, radius = (int(value) for value in rng.integers((20, 20, 5), (236, 236, 90)))
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=0, width=2)
    return np.asarray(picture)


def noise(rng: Random) -> Grey:
    return rng.integers(0, 256, (SIDE, SIDE), np.uint8)


def clouds(rng: Random) -> Grey:
    return _levels(texture(rng, float(np.exp(rng.uniform(0.7, 3.7)))))


def fractal(rng: Random) -> Grey:
    """Noise whose spectrum falls by a power, as that of natural scenes."""
    rows, columns = np.fft.fftfreq(SIDE), np.fft.rfftfreq(SIDE)
    radius = np.hypot(rows[:, None], columns[None]) + 1 / SIDE
    return _levels(np.fft.irfft2(np.fft.rfft2(rng.normal(size=(SIDE, SIDE))) / radius ** rng.uniform(0.8, 2), (SIDE, SIDE)))


KINDS: Final[Mapping[str, Mapping[str, Maker]]] = {
    "limbs": {"hand": hand, "foot": foot, "knee": knee, "limb": limb},
    "spines": {"spine": spine, "side_spine": side_spine, "abdomen": abdomen},
    "trunks": {"pelvis": pelvis, "skull": skull, "torso": torso},
    "random": {"anatomy": anatomy},
    "drawn": {"page": page, "screenshot": screenshot, "drawing": drawing},
    "textures": {"noise": noise, "clouds": clouds, "fractal": fractal},
}
"""Makers by family: leaving a family out of the fit tells how the scope takes what it never saw."""


# ---- parts of real radiographs ----------------------------------------------------------------------------------------


def part(radiograph: Grey, rng: Random) -> Grey:
    """What of a chest radiograph is none: a small part, one on its side or head, its tiles or halves in another order."""
    height, width = radiograph.shape
    way = int(rng.integers(7))
    if way < 3:
        rows, columns = (((0.2, 0.45), (0.2, 0.45)), ((0.5, 1), (0.2, 0.38)), ((0.2, 0.38), (0.6, 1)))[way]
        high, wide = int(height * rng.uniform(*rows)), int(width * rng.uniform(*columns))
        top, left = int(rng.integers(height - high + 1)), int(rng.integers(width - wide + 1))
        if way == 1 and rng.random() < 0.5:
            left = (width - wide) // 2
        found = radiograph[top : top + high, left : left + wide]
    elif way == 3:
        found = np.rot90(radiograph, int(rng.choice([1, 3])))
    elif way == 4:
        found = radiograph[::-1]
    elif way == 5:
        count = int(rng.integers(2, 4))
        whole = radiograph[: height // count * count, : width // count * count]
        tiles = [tile for row in np.split(whole, count) for tile in np.split(row, count, axis=1)]
        order = rng.permutation(len(tiles)).reshape(count, count)
        found = np.block([[tiles[number] for number in row] for row in order])
    else:
        found = np.roll(radiograph, height // 2, axis=0) if rng.random() < 0.5 else np.roll(radiograph, width // 2, axis=1)
    return np.ascontiguousarray(found)
