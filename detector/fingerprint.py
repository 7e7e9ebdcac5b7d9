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

import itertools
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from detector.calibration import upper_bound
from detector.pattern import (
    LARGEST,
    Exposure,
    Floats,
    Peak,
    Traces,
    Unfit,
    estimated,
    flattened,
    peak_of,
    reduced,
    residual,
    signal_of,
    traces_of,
)

FEWEST: Final = 16
"""Images that a fingerprint is made of, at least: with fewer, no p-value could be small enough for a claim."""
SMALLEST: Final = 128
"""Pixels of a short side, at least."""
FOUND: Final = 6.0
"""A strength (minus the decimal logarithm of the chance) at which the pattern is there."""
ABSENT: Final = 2.0
"""A strength below which noise alone explains it."""
LEVEL: Final = 1 / (FEWEST + 1)
"""The largest p-value with which a device is denied."""
DISTINCTIVE: Final = 0.95
"""The share of a device's own images in which its pattern must be found."""
SAME: Final = 0.95
"""Correlation of two residuals above which they are of one exposure: quantum noise never comes again."""
_FORMAT: Final = 1
_STEPS: Final = 32
"""Of a stored pattern in one standard deviation: 8 bits hold 4 of them."""

Word = Literal["match", "no match", "no claim"]


@dataclass(frozen=True)
class Match:
    """What comparing an image with a device's fingerprint gave.

    word: `match` (the pattern is there), `no match` (this does not look like that device) or `no claim`. pce: signed
    peak-to-correlation energy. p_value: the share of the device's own images with a pattern as weak (conformal); None where
    nothing is claimed from it. false_match_rate: at most so many images of other devices match (95 % confidence), as far as
    such were enrolled. shift: rows and columns of the sensor at which the image begins, in its own pixels, where it matches.
    """

    word: Word
    text: str
    pce: float | None = None
    p_value: float | None = None
    false_match_rate: float | None = None
    shift: tuple[int, int] | None = None


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
        samples: list[Floats] = []
        for number, given in enumerate(exposures):
            signal, lossy_now = signal_of(given)
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
            traces.append(traces_of(noise))
            samples.append(_sample(noise))
            again = [one for one, sample in enumerate(samples[:-1]) if float((sample * samples[-1]).sum()) > SAME]
            if again:
                raise Unfit(f"image {number + 1} is image {again[0] + 1} again: one exposure counts once")
            lossy |= lossy_now
            advance(number + 1)
        strengths = []
        for number, given in enumerate(exposures):
            signal, _ = signal_of(given)
            own = residual(signal) * signal
            left = estimated(above - own, below - signal**2)
            strengths.append(peak_of(left, flattened(own)).strength)
            advance(len(exposures) + number + 1)
        pattern = np.rint(np.clip(estimated(above, below) * _STEPS, -127, 127)).astype(np.int8)
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
        """The best peak of an image in any position of the sensor it may have come in (turned, mirrored, cropped; or reduced
        whole); None where its size fits none. Raises Unfit."""
        return self._peak_of(signal_of(exposure)[0])

    def _peak_of(self, signal: Floats) -> Peak | None:
        if min(signal.shape) < SMALLEST:
            return None
        evidence = flattened(residual(signal) * signal)
        best: Peak | None = None
        whole = self.pattern.astype(np.float32)
        for pattern, turn in itertools.product((whole, *reduced(whole, signal.shape)), range(8)):
            turned = np.rot90(evidence.T if turn >= 4 else evidence, turn % 4)
            if turned.shape[0] <= pattern.shape[0] and turned.shape[1] <= pattern.shape[1]:
                peak = peak_of(pattern, turned, upright=turn == 0)
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
    signal, lossy = signal_of(exposure)
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
    text = (
        f"this does not look like that device: its fixed pattern isn't there, which {count} images of it have (a panel that was"
        " calibrated anew since then has another)"
    )
    return Match("no match", text, peak.pce, p_value, rate)


def _changed(fingerprint: Fingerprint, signal: Floats, lossy: bool) -> str | None:
    """Why the pattern may be missing in an image of the device; None if the image is like those that were enrolled."""
    if sorted(signal.shape) != sorted(fingerprint.pattern.shape):
        return "the image is smaller than the device's: cropped or reduced, and it may be lost"
    if lossy and not fingerprint.lossy:
        return "the image was compressed with loss, unlike the enrolled ones"
    seen = traces_of(residual(signal))
    blocks, fine = (np.asarray(known) for known in zip(*fingerprint.traces, strict=True))
    if seen.blocks > blocks.max() + max(0.5 * float(np.ptp(blocks)), 0.02):
        return "the image has the blocks of a lossy codec, unlike the enrolled ones"
    if seen.fine < fine.min() - max(0.5 * float(np.ptp(fine)), 0.25):
        return "its finest noise is weaker than in the enrolled ones: scaled, smoothed, compressed, or never there"
    return None


def _sample(noise: Floats) -> Floats:
    """The middle of a residual, of norm 1."""
    top, left = ((side - SMALLEST) // 2 for side in noise.shape)
    middle = noise[top : top + SMALLEST, left : left + SMALLEST]
    middle = middle - middle.mean()
    return np.asarray(middle / max(float(np.linalg.norm(middle)), 1e-12), np.float32)


def _size(pixels: NDArray[Any]) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]}"
