"""The device side: seals images with one key. A seal is reported only after the journal has it on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ledger.core import content
from ledger.core.contracts import Beacon
from ledger.core.errors import FixInput
from ledger.core.pixels import PixelDigest
from ledger.core.records import AcquisitionRecord, SignedRecord
from ledger.core.typeddata import Domain

NO_RECORD = bytes(32)


@dataclass(frozen=True)
class Sealable:
    """What is read off one image: attributes by DICOM keyword (None: absent), the digest, and for a lossy original the
    digest of
    what `decoder` decodes."""

    attributes: Mapping[str, str | None]
    digest: PixelDigest
    decoded: PixelDigest | None = None
    decoder: str | None = None


@dataclass(frozen=True)
class Sealed:
    """One sealed image as the journal keeps it: the signed record and all that opens its commitment later."""

    signed: SignedRecord
    record_id: bytes
    leaves: tuple[bytes, ...]
    image_key: bytes
    study: str
    find: bytes
    instance: str
    digest: PixelDigest
    decoder: str | None


@dataclass(frozen=True)
class Receipt:
    """What `Sealer.seal` answers for an image: `is_new` is False where this key had sealed the very same content before."""

    record_id: bytes
    counter: int
    is_new: bool


class Signer(Protocol):
    """A key that signs 32-byte digests with 64 bytes r || s, low s."""

    @property
    def key(self) -> bytes: ...

    def sign(self, digest: bytes) -> bytes: ...


class Journal(Protocol):
    """The device's own durable book. Every method may raise TryLater, after which nothing of that call has happened."""

    def study_secrets(self, studies: Sequence[str]) -> Mapping[str, bytes]:
        """The 32-byte secret of each study, made and made durable where it is new. Raises NeedPermission for a redacted
        study."""

    def tail(self, key: bytes) -> tuple[int, bytes] | None:
        """The (counter, record id) of the key's newest record."""

    def by_content(self, key: bytes, contents: Sequence[bytes]) -> Mapping[bytes, tuple[int, bytes]]:
        """content -> (counter, record id) of those that the key has sealed already."""

    def append(self, sealed: Sequence[Sealed]) -> None:
        """All or none, on disk when it returns. Raises TryLater where another process took the slot first: read the tail
        again."""


class Sealer:
    """Signs AcquisitionRecords with one key: counters without gaps, each naming the one before."""

    def __init__(self, journal: Journal, signer: Signer, domain: Domain, clock: Callable[[], float]) -> None:
        self._journal, self._signer, self._domain, self._clock = journal, signer, domain, clock

    def seal(self, images: Sequence[Sealable], beacon: Beacon, beacon_time: int) -> list[Receipt]:
        """Seals a batch, all or none; the receipts are in the order of `images`.

        The claimed time is the device's clock, or the beacon's block time where the clock is behind a block that it has seen.
        """
        if not images:
            return []
        secrets = self._journal.study_secrets([_study(image) for image in images])
        drafts = [_commit(image, secrets[_study(image)]) for image in images]
        known = dict(self._journal.by_content(self._signer.key, [draft.content.root for draft in drafts]))
        tail = self._journal.tail(self._signer.key)
        counter, previous = (tail[0] + 1, tail[1]) if tail else (0, NO_RECORD)
        claimed = max(int(self._clock()), beacon_time)
        receipts: list[Receipt] = []
        sealed: list[Sealed] = []
        for draft in drafts:
            root = draft.content.root
            if root in known:
                receipts.append(Receipt(known[root][1], known[root][0], is_new=False))
                continue
            record = AcquisitionRecord(
                root, draft.profile, self._signer.key, counter, previous, claimed, beacon.number, beacon.hash
            )
            record_id = record.id(self._domain)
            sealed.append(draft.signed(SignedRecord(record, self._signer.sign(record_id)), record_id))
            receipts.append(Receipt(record_id, counter, is_new=True))
            known[root] = (counter, record_id)
            counter, previous = counter + 1, record_id
        if sealed:
            self._journal.append(sealed)
        return receipts


@dataclass(frozen=True)
class _Draft:
    image: Sealable
    content: content.Content
    image_key: bytes
    find: bytes

    @property
    def profile(self) -> str:
        return f"{self.image.digest.profile}/{content.ATTRIBUTE_LIST}"

    def signed(self, signed: SignedRecord, record_id: bytes) -> Sealed:
        return Sealed(
            signed,
            record_id,
            self.content.leaves,
            self.image_key,
            _study(self.image),
            self.find,
            _instance(self.image),
            self.image.digest,
            self.image.decoder,
        )


def _commit(image: Sealable, secret: bytes) -> _Draft:
    digest, instance = str(image.digest), _instance(image)
    values = dict(image.attributes) | {content.PIXELS: digest}
    if image.decoded is not None:
        if not image.decoder:
            raise FixInput("a decoded digest needs the name of its decoder")
        values[content.DECODED] = f"{image.decoded} {image.decoder}"
    key = content.image_key(secret, digest, instance)
    find = content.find_key(secret)
    tokens = content.find_token(find, content.PIXELS, digest) + content.find_token(find, "SOPInstanceUID", instance)
    return _Draft(image, content.commit(values, key), key, tokens)


def _instance(image: Sealable) -> str:
    return image.attributes.get("SOPInstanceUID") or ""


def _study(image: Sealable) -> str:
    """The study whose secret salts the image; an image of no study is a study of its own."""
    return image.attributes.get("StudyInstanceUID") or f"{_instance(image)} {image.digest}"
