"""Fingerprints of devices: one file a device in a folder, enrolled from its sealed images, asked about images that claim it.

A file is named after the hash of what the device calls itself (Manufacturer, ManufacturerModelName, DeviceSerialNumber), and
has neither these nor a picture in it. The hash hides little: these three can be guessed. Who has the file can put the device's
pattern into other images, so it is readable by its owner alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, overload

from ledger.core.errors import FixInput, NeedPermission, ScanSealError
from ledger.core.search import Subject, claimed_device
from ledger.core.verdict import Token
from ledger.dicom import Image
from ledger.wiring.images import Found
from ledger.wiring.opinion import NotInstalled, Seen, values

if TYPE_CHECKING:
    from detector.assessment import Reason
    from detector.fingerprint import Fingerprint
    from detector.pattern import Exposure
    from ledger.wiring.verification import Result

FOLDER = "fingerprints"
"""Of a site."""
SUFFIX = ".npz"
PART = "device fingerprint"
NAMED = 5
"""Images that an error names."""
_WHOLE = "Manufacturer, ManufacturerModelName and DeviceSerialNumber"


class Verifier(Protocol):
    """Who says what is sealed: `ledger.wiring.verification.Verifier`."""

    def verify(self, images: Iterable[Found]) -> Iterator[Result]:
        """A result for each image, in order."""


@dataclass(frozen=True)
class Enrolment:
    """What was enrolled. device: the hash that names it; unlike: images without the pattern of the others; refusal: why the
    fingerprint will make no claims, or None."""

    file: Path
    device: str
    images: int
    sealed: bool
    size: tuple[int, int]
    unlike: tuple[str, ...]
    others: int
    false_match_rate: float | None
    refusal: str | None

    def as_json(self) -> dict[str, Any]:
        return {
            "file": str(self.file),
            "device": self.device,
            "images": self.images,
            "sealed": self.sealed,
            "columns": self.size[1],
            "rows": self.size[0],
            "unlike": list(self.unlike),
            "other_devices_images": self.others,
            "false_match_rate": self.false_match_rate,
            "distinctive": self.refusal is None,
            "refusal": self.refusal,
        }


class Fingerprints:
    """A folder of fingerprints, which are loaded when an image claims their device."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last: tuple[bytes, Fingerprint | str] | None = None

    def reason(self, image: Image, seen: Seen | None = None) -> Reason | None:
        """What the fingerprint of the device that an image claims says of it; None where it claims none that is enrolled.

        seen: its values, if they were decoded before. What can't be compared is no claim, with the reason.
        """
        device = claimed_device(Subject(image.attributes, {}))
        if device is None or not self.path(device).is_file():
            return None
        from detector.assessment import Reason
        from detector.fingerprint import compare

        known = self._load(device)
        if isinstance(known, str):
            return Reason(PART, None, f"no claim: {known}")
        try:
            match = compare(known, _exposure(image, seen))
        except (ScanSealError, ValueError, MemoryError) as error:
            return Reason(PART, None, f"no claim: the image can't be compared: {error or 'too little memory'}")
        proven = "" if known.sealed else "; its images were enrolled unsealed"
        rate = match.false_match_rate
        others = "" if rate is None else f"; at most {rate:.1%} of other devices' images match, by those that were enrolled"
        return Reason(PART, match.p_value, match.text + (others if match.word == "match" else "") + proven)

    def path(self, device: bytes) -> Path:
        return self.folder / (device.hex() + SUFFIX)

    def listed(self) -> Iterator[tuple[str, Fingerprint | str]]:
        """The hash of each device here, and its fingerprint or why it can't be read."""
        for file in sorted(self.folder.glob(f"*{SUFFIX}")):
            yield file.stem, _read(file)

    def _load(self, device: bytes) -> Fingerprint | str:
        if self._last is None or self._last[0] != device:
            self._last = device, _read(self.path(device))
        return self._last[1]

    def enrol(
        self,
        images: Iterable[Found],
        verifier: Verifier | None,
        others: Iterable[Found] = (),
        *,
        replace: bool = False,
        advance: Callable[[int], None] = lambda done: None,  # noqa: ARG005
    ) -> Enrolment:
        """Makes the fingerprint of the one device that all images claim. verifier: who says that they are AUTHENTIC; None to
        take them unsealed, which is written down. others: images of other devices, for the rate of false matches.

        Raises FixInput for images that can't be enrolled, and for a device that has a fingerprint unless `replace`;
        NeedPermission where the folder can't be written.
        """
        try:
            from detector.fingerprint import Fingerprint
            from detector.pattern import Unfit
        except ImportError as error:
            missing = error.name or "a library"
            raise NotInstalled(
                f"the detector is not installed ({missing} is missing): pip install 'scanseal[detector]'"
            ) from error
        found = list(images)
        taken = [one for one in found if _is_image(one)] if verifier is None else _authentic(verifier, found)
        device = _device_of(taken)
        file = self.path(device)
        if file.exists() and not replace:
            raise FixInput(f"{file} is there: the device is enrolled; --replace makes its fingerprint anew")
        foreign = [one for one in others if _is_image(one)]
        for one in foreign:
            if claimed_device(Subject(one.read().attributes, {})) == device:
                raise FixInput(f"{one.path} claims the device itself: --others is for images of other devices")
        try:
            made = Fingerprint.of(_Exposures(taken), _Exposures(foreign), sealed=verifier is not None, advance=advance)
        except Unfit as error:
            raise FixInput(f"no fingerprint can be made of these images: {error}") from error
        self._write(made, file)
        return Enrolment(
            file,
            device.hex(),
            len(taken),
            made.sealed,
            (made.pattern.shape[0], made.pattern.shape[1]),
            tuple(taken[number].path for number in made.unlike),
            len(made.others),
            made.false_match_rate,
            made.refusal,
        )

    def _write(self, made: Fingerprint, file: Path) -> None:
        """Whole or not at all."""
        partial = file.with_suffix(".partial")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial.touch(mode=0o600)
            made.save(partial)
            partial.replace(file)
        except OSError as error:
            raise NeedPermission(f"{self.folder}: cannot be written ({error.strerror})") from error


class _Exposures(Sequence["Exposure"]):
    """Images that are decoded when they are asked for, so that one at a time is in memory."""

    def __init__(self, images: Sequence[Found]) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    @overload
    def __getitem__(self, number: int) -> Exposure: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Exposure]: ...
    def __getitem__(self, number: int | slice) -> Exposure | Sequence[Exposure]:
        if isinstance(number, slice):
            return _Exposures(self._images[number])
        found = self._images[number]
        try:
            return _exposure(found.read(), None)
        except ScanSealError as error:
            raise FixInput(f"{found.path}: {error}") from error


def _exposure(image: Image, seen: Seen | None) -> Exposure:
    from detector.pattern import Exposure

    given = values(image) if seen is None else seen
    return Exposure(given.pixels, given.inverted, lossy=image.kind == "cs1")


def _read(file: Path) -> Fingerprint | str:
    from detector.fingerprint import Fingerprint
    from detector.pattern import Unfit

    try:
        return Fingerprint.load(file)
    except Unfit as error:
        return f"the enrolled fingerprint can't be used: {error}"
    except OSError as error:
        return f"the enrolled fingerprint can't be read ({error.strerror})"


def _is_image(found: Found) -> bool:
    """Whether it has pixels. A file that was named and is none is an error, as is one that can't be read."""
    try:
        has_pixels = found.read().frames > 0
    except ScanSealError as error:
        raise FixInput(f"{found.path}: {error}") from error
    if found.named and not has_pixels:
        raise FixInput(f"{found.path} has no pixels")
    return has_pixels


def _authentic(verifier: Verifier, found: list[Found]) -> list[Found]:
    """The images, every one AUTHENTIC."""
    results = [result for result in verifier.verify(found) if not result.without_pixels]
    odd = [result for result in results if result.verdict.token is not Token.AUTHENTIC]
    if odd:
        counts = ", ".join(f"{count} {token}" for token, count in Counter(str(one.verdict.token) for one in odd).most_common())
        names = ", ".join(one.path for one in odd[:NAMED]) + (", ..." if len(odd) > NAMED else "")
        raise FixInput(
            f"{len(odd)} of {len(results)} images are not AUTHENTIC ({counts}): {names}. Leave them out; --unsealed takes"
            " images whose device is only claimed"
        )
    return [result.found for result in results if result.found is not None]


def _device_of(images: Sequence[Found]) -> bytes:
    if not images:
        raise FixInput("no images there: name files or folders with DICOM images of one device")
    devices: dict[bytes, str] = {}
    for found in images:
        device = claimed_device(Subject(found.read().attributes, {}))
        if device is None:
            raise FixInput(f"{found.path} does not name its device whole ({_WHOLE})")
        devices.setdefault(device, found.path)
    if len(devices) > 1:
        first, second = list(devices.values())[:2]
        raise FixInput(f"the images claim {len(devices)} devices ({first} another than {second}): enrol one at a time")
    return next(iter(devices))
