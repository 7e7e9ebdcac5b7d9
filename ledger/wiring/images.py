"""Images as the rest of ScanSeal takes them: what is sealed of one, and what is verified of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from ledger.core.errors import FixInput, Refused, Unreadable
from ledger.core.pixels import PixelDigest
from ledger.core.search import Subject
from ledger.dicom import Image
from ledger.register import Sealable


class Found(NamedTuple):
    """An image at a place: `path` for people, `read` to open it."""

    path: str
    read: Callable[[], Image]


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
    """An image's digests by profile, computed when asked for. Iterating gives the profiles that the image would be sealed with,
    one for each hash; any other profile can still be asked for.

    `refusals` says why a profile has none. A decoder that was stopped (time, memory, a crash) says nothing about the image:
    asking
    for such a digest raises Unreadable, and `stopped` keeps the reason.
    """

    def __init__(self, image: Image, hash_names: frozenset[str]) -> None:
        self._image = image
        self._own = [f"{image.kind}-{name}" for name in sorted(hash_names)]
        self._raw = [f"raw1-{name}" for name in sorted(hash_names)]
        self.refusals: dict[str, str] = {}
        self.stopped: str | None = None

    def __getitem__(self, profile: str) -> PixelDigest:
        try:
            return self._image.digest(profile)
        except Refused as error:
            self.refusals[profile] = str(error)
        except Unreadable as error:
            self.stopped = str(error)
            raise
        except FixInput:
            self.refusals[profile] = "an unknown profile"
        raise KeyError(profile)

    def __iter__(self) -> Iterator[str]:
        return iter([own if self._has(own) else raw for own, raw in zip(self._own, self._raw, strict=True)])

    def _has(self, profile: str) -> bool:
        try:
            return profile in self
        except Unreadable:
            return False

    def __len__(self) -> int:
        return len(self._own)


def subject(image: Image, hash_names: frozenset[str]) -> Subject:
    """What is verified, with digests of the hashes that the records use."""
    digests = Digests(image, hash_names)
    return Subject(image.attributes, digests, digests.refusals)
