"""The fixed pattern that a flat-panel detector leaves in its images, and whether an image has it.

What calibration leaves of the gains of pixels multiplies every image of one panel in the same places (photo-response
non-uniformity: Lukas, Fridrich, Goljan 2006; Chen, Fridrich, Goljan, Lukas 2008). It is estimated from images of one device and
looked for in others by their peak-to-correlation energy over all shifts.

1. Residual: an image less its denoised self. On the two finest scales of an undecimated wavelet a local Wiener filter (Mihcak
   1999) tells noise from structure: at edges and in texture nearly nothing is left. On coarser ones is more of the patient.
2. Estimate, of greatest likelihood where a residual is the image times the pattern, and noise: sum(W I) / sum(I^2).
3. Means of rows and columns are removed, though a panel's columns have gains of their own: grids, edges of collimators, block
   codecs and read-out draw lines as well, the same in the images of many devices. The spectrum is then flattened, and what
   stands out of it is cut: lattices, and what is left of anatomy, stay in few frequencies; gains are in all.
4. A correlation is judged by the chance that noise alone gives one as high anywhere (Gaussian, Bonferroni over places). The
   images that the pattern was made of say how high genuine ones are, each left out of the estimate once: the p-value of a low
   one is conformal.

It makes no claim where an absence means nothing: an image of another size, processed otherwise, compressed, or a pattern too
weak to be found in the device's own images. **It does not prove** that a device made an image: a pattern can be estimated by
whoever has its images, and be added to others. It cannot see dead pixels that were corrected. A panel that was calibrated anew
has another pattern: enrol it again.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage, stats

from detector.calibration import upper_bound

FEWEST: Final = 16
"""Images that a fingerprint is made of, at least: with fewer, no p-value could be small enough for a claim."""
SMALLEST: Final = 128
"""Pixels of a short side, at least."""
LARGEST: Final = 36_000_000
"""Pixels of an image, at most."""
FOUND: Final = 6.0
"""A strength (minus the decimal logarithm of the chance) at which the pattern is there."""
ABSENT: Final = 2.0
"""A strength below which noise alone explains it."""
LEVEL: Final = 1 / (FEWEST + 1)
"""The largest p-value with which a device is denied."""
DISTINCTIVE: Final = 0.95
"""The share of a device's own images in which its pattern must be found."""
_WHITE: Final = (0.8908, 0.2007)
"""Standard deviation of white noise on each scale of the wavelet (Starck and Murtagh 1998)."""
_WINDOWS: Final = (3, 5, 9)
_SPLINE: Final = np.array([1, 4, 6, 4, 1], np.float32) / 16
_AROUND: Final = 5
"""Pixels around a peak that count as part of it."""
_FORMAT: Final = 1
_STEPS: Final = 32
"""Of a stored pattern in one standard deviation: 8 bits hold 4 of them."""

Floats = NDArray[np.float32]
Word = Literal["match", "no match", "no claim"]


class Unfit(ValueError):
    """Images that no fingerprint can be made of, or a file that holds none; the message says what is wrong."""


class Exposure(NamedTuple):
    """One image's stored values (H, W) or (H, W, channels). inverted: small values are bright; bits: of a stored value (None:
    all of its type), for images that are inverted; lossy: it went through a lossy codec, as far as its file says."""

    pixels: NDArray[Any]
    inverted: bool = False
    bits: int | None = None
    lossy: bool = False


@dataclass(frozen=True)
class Match:
    """What comparing an image with a device's fingerprint gave.

    word: `match` (the pattern is there), `no match` (this does not look like that device) or `no claim`. pce: signed
    peak-to-correlation energy. p_value: the share of the device's own images with a pattern as weak (conformal); None where
    nothing is claimed from it. false_match_rate: at most so many images of other devices match (95 % confidence), as far as
    such were enrolled. shift: rows and columns of the sensor at which the image begins, if the pattern was found.
    """

    word: Word
    text: str
    pce: float | None = None
    p_value: float | None = None
    false_match_rate: float | None = None
    shift: tuple[int, int] | None = None


class Peak(NamedTuple):
    """The most telling place of a correlation. strength: minus the decimal logarithm of its chance among noise."""

    strength: float
    pce: float
    shift: tuple[int, int]


class Traces(NamedTuple):
    """What processing leaves in an image's noise. blocks: steps between columns and rows at the most frequent of eight places
    against the median one (JPEG); fine: energy of the finest noise against coarser, in octaves (scaling, smoothing)."""

    blocks: float
    fine: float


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """The fixed pattern of one device.

    pattern: (H, W) int8 of the whole sensor, `_STEPS` to a standard deviation. strengths: of the device's own images, each left
    out once; others: of other devices' images. traces: of the device's own. sealed: all images were proven to be the device's.
    """

    pattern: NDArray[np.int8]
    strengths: tuple[float, ...]
    others: tuple[float, ...]
    traces: tuple[Traces, ...]
    lossy: bool
    sealed: bool = False

    @classmethod
    def of(
        cls,
        exposures: Sequence[Exposure | NDArray[Any]],
        others: Sequence[Exposure | NDArray[Any]] = (),
        *,
        sealed: bool = False,
        fewest: int = FEWEST,
        advance: Callable[[int], None] = lambda done: None,  # noqa: ARG005
    ) -> Fingerprint:
        """Of at least `FEWEST` images of one device, all of one size; they are read twice, in order, and one at a time. others:
        images that other devices made. fewest: another number, to measure what it gives. advance is told how many were read.

        Raises Unfit. A fingerprint that isn't `distinctive` is no error: it makes no claims.
        """
        if len(exposures) < max(fewest, 2):
            raise Unfit(f"{len(exposures)} images: a fingerprint takes {max(fewest, 2)} or more")
        shape: tuple[int, int] | None = None
        for number, given in enumerate(exposures):
            signal, lossy_now = _signal(given)
            if min(signal.shape) < SMALLEST:
                raise Unfit(f"image {number + 1} is {_size(signal)}: {SMALLEST} pixels a side are needed")
            if shape is None:
                shape, lossy = (signal.shape[0], signal.shape[1]), False
                above, below = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
                traces: list[Traces] = []
            if signal.shape != shape:
                raise Unfit(f"image {number + 1} is {_size(signal)}, those before it are {_size(above)}: one size is needed")
            noise = residual(signal)
            above += noise * signal
            below += signal**2
            traces.append(_traces(noise))
            lossy |= lossy_now
            advance(number + 1)
        strengths = []
        for number, given in enumerate(exposures):
            signal, _ = _signal(given)
            own = residual(signal) * signal
            left = _pattern(above - own, below - signal**2)
            strengths.append(_peak(left, flattened(own)).strength)
            advance(len(exposures) + number + 1)
        pattern = np.rint(np.clip(_pattern(above, below) * _STEPS, -127, 127)).astype(np.int8)
        made = cls(pattern, tuple(strengths), (), tuple(traces), lossy, sealed)
        foreign = [made.peak(given) for given in others]
        known = tuple(peak.strength for peak in foreign if peak is not None)
        return cls(pattern, tuple(strengths), known, tuple(traces), lossy, sealed)

    @property
    def unlike(self) -> tuple[int, ...]:
        """Which of the device's own images (from 0) do not have the pattern of the others, or far less of it: two devices that
        are mixed give a pattern of both."""
        least = max(FOUND, float(np.median(self.strengths)) / 20)
        return tuple(number for number, strength in enumerate(self.strengths) if strength < least)

    @property
    def refusal(self) -> str | None:
        """Why the fingerprint makes no claims, or None: found in too few of its own images, or in others."""
        shared = sum(strength >= FOUND for strength in self.others)
        if shared:
            return f"its pattern is in {shared} of {len(self.others)} images of other devices as well: it isn't its own"
        found = len(self.strengths) - len(self.unlike)
        if found < DISTINCTIVE * len(self.strengths):
            return (
                f"its pattern is found in only {found} of its own {len(self.strengths)} images, each left out once: too weak"
                " to tell by, or images of another device or calibration are among them"
            )
        return None

    @property
    def distinctive(self) -> bool:
        return self.refusal is None

    @property
    def false_match_rate(self) -> float | None:
        """At most so many images of other devices match, at 95 % confidence; None where no others were enrolled."""
        return upper_bound(sum(one >= FOUND for one in self.others), len(self.others)) if self.others else None

    def peak(self, exposure: Exposure | NDArray[Any]) -> Peak | None:
        """The best peak of an image in any position of the sensor it may have come in (turned, mirrored, cropped); None where
        its size fits none. Raises Unfit."""
        return self._peak_of(_signal(exposure)[0])

    def _peak_of(self, signal: Floats) -> Peak | None:
        if min(signal.shape) < SMALLEST:
            return None
        evidence = flattened(residual(signal) * signal)
        best: Peak | None = None
        for turn in range(8):
            turned = np.rot90(evidence.T if turn >= 4 else evidence, turn % 4)
            if turned.shape[0] <= self.pattern.shape[0] and turned.shape[1] <= self.pattern.shape[1]:
                peak = _peak(self.pattern, turned, upright=turn == 0)
                best = peak if best is None or peak.strength > best.strength else best
                if best.strength >= FOUND:
                    break
        return best

    def save(self, file: Path) -> None:
        """Writes a compressed `.npz`. It has no name, no number and no picture in it; whoever has it can forge the pattern."""
        with file.open("wb") as opened:
            np.savez_compressed(
                opened,
                format=np.int64(_FORMAT),
                pattern=self.pattern,
                strengths=np.asarray(self.strengths, np.float64),
                others=np.asarray(self.others, np.float64),
                traces=np.asarray(self.traces, np.float64),
                flags=np.asarray([self.lossy, self.sealed]),
            )

    @classmethod
    def load(cls, file: Path) -> Fingerprint:
        """Raises Unfit for what is no fingerprint, OSError where it can't be read."""
        try:
            with zipfile.ZipFile(file) as packed:
                if sum(one.file_size for one in packed.infolist()) > 2 * LARGEST:
                    raise Unfit(f"{file.name} is too large for a fingerprint")
            with np.load(file, allow_pickle=False) as held:
                if int(held["format"]) != _FORMAT:
                    raise Unfit(f"{file.name} is of format {int(held['format'])}, this version reads {_FORMAT}: enrol again")
                pattern, flags = held["pattern"], held["flags"]
                strengths, others, traces = (held[name].astype(np.float64) for name in ("strengths", "others", "traces"))
        except Unfit:
            raise
        except (zipfile.BadZipFile, zipfile.LargeZipFile, KeyError, ValueError, EOFError, TypeError) as error:
            raise Unfit(f"{file.name} is no fingerprint, or a damaged one") from error
        whole = (
            pattern.dtype == np.int8 and pattern.ndim == 2 and min(pattern.shape) >= SMALLEST and pattern.size <= LARGEST,
            strengths.ndim == others.ndim == 1 and len(strengths) >= FEWEST and np.isfinite(strengths).all(),
            np.isfinite(others).all() and traces.shape == (len(strengths), 2) and np.isfinite(traces).all(),
            flags.shape == (2,) and flags.dtype == np.bool_,
        )
        if not all(whole):
            raise Unfit(f"{file.name} is no fingerprint, or a damaged one")
        seen = tuple(Traces(float(one), float(two)) for one, two in traces)
        return cls(pattern, tuple(strengths.tolist()), tuple(others.tolist()), seen, bool(flags[0]), bool(flags[1]))


def compare(fingerprint: Fingerprint, exposure: Exposure | NDArray[Any]) -> Match:
    """Whether an image has the pattern of a device. Raises ValueError for an array that is no picture of one frame."""
    if fingerprint.refusal is not None:
        return Match("no claim", f"no claim: the enrolled fingerprint isn't distinctive: {fingerprint.refusal}")
    signal, lossy = _signal(exposure)
    peak, rate = fingerprint._peak_of(signal), fingerprint.false_match_rate
    if peak is None:
        enrolled = _size(fingerprint.pattern)
        return Match(
            "no claim", f"no claim: {_size(signal)} pixels, the device's images have {enrolled}: scaled, or not its own"
        )
    count = len(fingerprint.strengths)
    p_value = (1 + sum(strength <= peak.strength for strength in fingerprint.strengths)) / (count + 1)
    if peak.strength >= FOUND:
        where = "" if peak.shift == (0, 0) else f", {peak.shift[0]} rows and {peak.shift[1]} columns from the sensor's corner"
        text = f"looks like that device: its fixed pattern is there (peak-to-correlation energy {peak.pce:.0f}{where})"
        return Match("match", text, peak.pce, p_value, rate, peak.shift)
    changed = _changed(fingerprint, signal, lossy)
    if changed is not None:
        return Match("no claim", f"no claim: the device's pattern isn't found, but {changed}", peak.pce, None, rate)
    if p_value > LEVEL or peak.strength >= ABSENT:
        return Match("no claim", "no claim: the device's pattern is weaker than usual, and may be there", peak.pce, None, rate)
    text = f"this does not look like that device: its fixed pattern isn't there, which {count} images of it have"
    return Match("no match", text, peak.pce, p_value, rate)


def _changed(fingerprint: Fingerprint, signal: Floats, lossy: bool) -> str | None:
    """Why the pattern may be missing in an image of the device; None if the image is like those that were enrolled."""
    if sorted(signal.shape) != sorted(fingerprint.pattern.shape):
        return "the image is smaller than the device's: cropped, or scaled, and then it would be lost"
    if lossy and not fingerprint.lossy:
        return "the image was compressed with loss, unlike the enrolled ones"
    seen = _traces(residual(signal))
    blocks, fine = (np.asarray(known) for known in zip(*fingerprint.traces, strict=True))
    if seen.blocks > blocks.max() + max(0.5 * float(np.ptp(blocks)), 0.02):
        return "the image has the blocks of a lossy codec, unlike the enrolled ones"
    if seen.fine < fine.min() - max(0.5 * float(np.ptp(fine)), 0.25):
        return "its finest noise is weaker than in the enrolled ones: scaled, smoothed, compressed, or never there"
    return None


# ---- from pixels to evidence -----------------------------------------------------------------------------------------


def _signal(given: Exposure | NDArray[Any]) -> tuple[Floats, bool]:
    """(H, W) float32 from 0 with a median of about 1; 0 where pixels are at their highest value, and tell nothing. And whether
    the image went through a lossy codec."""
    exposure = given if isinstance(given, Exposure) else Exposure(given)
    pixels = exposure.pixels
    if pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4):
        pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3].astype(np.float32).mean(2)
    if pixels.ndim != 2 or not 0 < pixels.size <= LARGEST:
        shape = " x ".join(map(str, pixels.shape))
        raise Unfit(f"an array of {shape}: a picture of one frame of at most {LARGEST} pixels is needed")
    if not np.issubdtype(pixels.dtype, np.number) or np.issubdtype(pixels.dtype, np.complexfloating):
        raise Unfit(f"values of the type {pixels.dtype} are no grey levels")
    values = pixels.astype(np.float32)
    if not np.isfinite(values).all():
        raise Unfit("it has values that are no numbers")
    if exposure.inverted:
        kind = exposure.pixels.dtype
        bits = exposure.bits or (8 * kind.itemsize if kind.kind in "iu" else 16)
        values = max(2.0**bits - 1, float(values.max())) - values
    values -= min(0.0, float(values.min()))
    top = float(values.max())
    if np.ptp(values) == 0:
        raise Unfit("an image of one grey level")
    exposed = values[(values > 0) & (values < top)]
    values[values == top] = 0
    return values / np.float32(np.median(exposed) if exposed.size else top), exposure.lossy


def _size(pixels: NDArray[Any]) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]}"


def residual(signal: Floats) -> Floats:
    """(H, W): an image's noise, as far as it can be told from what is in the picture."""
    coarse, noise, white = signal, np.zeros_like(signal), np.float32(np.inf)
    for scale, share in enumerate(_WHITE):
        kernel = np.zeros(4 * 2**scale + 1, np.float32)
        kernel[:: 2**scale] = _SPLINE
        smooth = ndimage.convolve1d(ndimage.convolve1d(coarse, kernel, 0, mode="mirror"), kernel, 1, mode="mirror")
        detail = coarse - smooth
        inside = np.abs(detail[signal > 0])
        usual = np.float32(np.median(inside) / 0.6745) ** 2 if inside.size else np.float32(0)
        white = min(white, usual / np.float32(share) ** 2)
        usual = white * np.float32(share) ** 2
        square = detail**2
        local = np.minimum.reduce([ndimage.uniform_filter(square, side, mode="mirror") for side in _WINDOWS])
        noise += detail * (usual / (np.maximum(local, usual) + np.float32(1e-12)))
        coarse = smooth
    return noise


def _traces(noise: Floats) -> Traces:
    ratios = []
    for lines in (noise, noise.T):
        steps = np.abs(np.diff(lines, axis=0)).mean(1)
        places = np.array([steps[place::8].mean() for place in range(8)])
        ratios.append(float(places.max() / max(float(np.median(places)), 1e-12)))
    power = np.abs(fft.rfft2(noise)) ** 2
    frequency = np.hypot(np.fft.fftfreq(noise.shape[0])[:, None], np.fft.rfftfreq(noise.shape[1]))
    fine, coarse = (power[(frequency > low) & (frequency < high)].mean() for low, high in ((0.35, 0.5), (0.1, 0.25)))
    return Traces(max(ratios), float(np.log2((fine + 1e-12) / (coarse + 1e-12))))


def flattened(pattern: Floats) -> Floats:
    """The same with a flat spectrum without lattices, without means of rows and columns, of standard deviation 1."""
    spectrum = fft.rfft2(pattern)
    spectrum[0], spectrum[:, 0] = 0, 0
    power = np.abs(spectrum) ** 2
    spectrum /= np.sqrt(ndimage.uniform_filter(power, 15, mode=("wrap", "nearest"))) + np.float32(1e-9)
    spectrum *= np.minimum(1, 3 / np.maximum(np.abs(spectrum), np.float32(1e-9)))
    flat = fft.irfft2(spectrum, pattern.shape)
    flat = np.clip(flat / max(float(flat.std()), 1e-12), -4, 4)
    return np.asarray(flat, np.float32)


def _pattern(above: Floats, below: Floats) -> Floats:
    return flattened(np.where(below > 0.01, above / np.maximum(below, np.float32(0.01)), np.float32(0)))


def _peak(pattern: NDArray[Any], evidence: Floats, *, upright: bool = True) -> Peak:
    """Of the correlation of an image's evidence with a pattern at least as large. The place of an image that was neither turned
    nor moved has half the prior weight; all others, in eight positions, share the other half."""
    padded = np.zeros(pattern.shape, np.float32)
    padded[: evidence.shape[0], : evidence.shape[1]] = evidence
    product = fft.rfft2(pattern.astype(np.float32)) * np.conj(fft.rfft2(padded))
    surface = fft.irfft2(product, pattern.shape)
    rows, columns = (
        whole - part + 1 if part < whole else whole for whole, part in zip(pattern.shape, evidence.shape, strict=True)
    )
    places = surface[:rows, :columns]
    row, column = divmod(int(np.argmax(places)), columns)
    best = _judged(surface, row, column, np.log(2 * 8 * places.size))
    return max(best, _judged(surface, 0, 0, np.log(2))) if upright else best


def _judged(surface: Floats, row: int, column: int, log_places: float) -> Peak:
    """The peak at a place against the energy of the rest, and its strength among so many places."""
    peak = float(surface[row, column])
    height, width = surface.shape
    near = np.arange(-_AROUND, _AROUND + 1)
    around = np.ix_((row + near) % height, (column + near) % width)
    rest = float(np.sum(surface.astype(np.float64) ** 2) - np.sum(surface[around].astype(np.float64) ** 2))
    energy = rest / (surface.size - (2 * _AROUND + 1) ** 2)
    ratio = peak / max(energy, 1e-30) ** 0.5
    chance = min(0.0, float(stats.norm.logsf(ratio)) + log_places)
    shift = (row - height if row > height // 2 else row, column - width if column > width // 2 else column)
    return Peak(float(-chance / np.log(10)), float(np.sign(peak) * ratio**2), shift)
