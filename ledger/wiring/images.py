"""Images as the rest of ScanSeal takes them: what is sealed of one, and what is verified of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ledger.core.errors import FixInput, Refused, Unreadable
from ledger.core.pixels import PixelDigest
from ledger.core.search import Subject
from ledger.dicom import Image, find_images
from ledger.register import Sealable


class WithoutPixels(Refused):
    """A report, a plan or another object that is no image."""


class Found(NamedTuple):
    """An image at a place: `path` for people, `read` to open it; `named` unless it was found in a folder or an archive."""

    path: str
    read: Callable[[], Image]
    named: bool = True


class Images:
    """The images in files, folders, zip archives and DICOMDIRs, lazily. Iterate once: then `skipped` has the number of other
    files that were in the folders and archives."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.skipped = 0
        self._paths = paths

    def __iter__(self) -> Iterator[Found]:
        for path in self._paths:
            files = find_images([Path(path)])
            yield from (Found(file.path, file.open, file.named) for file in files)
            self.skipped += files.skipped


def sealable(image: Image, hash_name: str = "sha256") -> Sealable:
    """What is sealed: the image's own profile, and for a lossy original what a named decoder makes of it."""
    profile = image.default_profile(hash_name)
    digest = image.digest(profile)
    if not profile.startswith("cs1"):
        return Sealable(image.attributes, digest)
    try:
        decoded = image.decoded_digest()
    except Refused:
        return Sealable(image.attributes, digest)
    return Sealable(image.attributes, digest, decoded.digest, decoded.decoder)


class Digests(Mapping[str, PixelDigest]):
    """An image's digests by profile. Iterating gives the profiles that the image would be sealed with, one for each hash: those
    are computed at once, so that the image itself need not stay in memory. For any other profile it is read again.

    `refusals` says why a profile has none. A decoder that was stopped (time, memory, a crash) says nothing about the image:
    asking for such a digest raises Unreadable, and `stopped` keeps the reason.
    """

    def __init__(self, image: Image, hash_names: frozenset[str], reopen: Callable[[], Image]) -> None:
        self._reopen = reopen
        self._known: dict[str, PixelDigest] = {}
        self._own: list[str] = []
        self.refusals: dict[str, str] = {}
        self.stopped: str | None = None
        for name in sorted(hash_names):
            own, raw = f"{image.kind}-{name}", f"raw1-{name}"
            try:
                self._own.append(own if self._compute(image, own) else raw)
            except Unreadable:
                self._own.append(raw)
            if self._own[-1] not in self._known:
                self._compute(image, raw)

    def __getitem__(self, profile: str) -> PixelDigest:
        if profile not in self._known and (profile in self.refusals or not self._compute(self._reopen(), profile)):
            raise KeyError(profile)
        return self._known[profile]

    def __iter__(self) -> Iterator[str]:
        return iter(self._own)

    def __len__(self) -> int:
        return len(self._own)

    def _compute(self, image: Image, profile: str) -> bool:
        """Whether the image has a digest in the profile, which is then known."""
        try:
            self._known[profile] = image.digest(profile)
        except Refused as error:
            self.refusals[profile] = str(error)
        except Unreadable as error:
            self.stopped = str(error)
            raise
        except FixInput:
            self.refusals[profile] = "an unknown profile"
        return profile in self._known


def subject(found: Found, hash_names: frozenset[str]) -> Subject:
    """What is verified of the image at a place, with digests of the hashes that the records use.

    Raises Unreadable for what is no DICOM object, WithoutPixels for one that is no image.
    """
    image = found.read()
    digests = Digests(image, hash_names, found.read)
    if not any(profile in digests for profile in digests):
        raise WithoutPixels("the object has no pixels: there is nothing to verify")
    return Subject(image.attributes, digests, digests.refusals)
