"""The signing side: one key writes records, gapless and chained. A record is reported only after the journal has it on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol

from ledger.core import content, deposit
from ledger.core.content import Content, Salts
from ledger.core.contracts import Beacon
from ledger.core.custody import Statement
from ledger.core.errors import EvidenceInvalid, FixInput, NeedPermission
from ledger.core.pixels import PixelDigest
from ledger.core.records import AcquisitionRecord, CustodyRecord, GatewayRecord, Record, SignedRecord, SyntheticRecord
from ledger.core.typeddata import Domain

NO_RECORD = bytes(32)
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True)
class Sealable:
    """What is read off one image: attributes by DICOM keyword (None: absent), the digest, and for a lossy original the
    digest of
    what `decoder` decodes."""

    attributes: Mapping[str, str | None]
    digest: PixelDigest
    decoded: PixelDigest | None = None
    decoder: str | None = None

    @property
    def instance(self) -> str:
        return self.attributes.get("SOPInstanceUID") or ""

    @property
    def study(self) -> str:
        """The study whose secret salts the image; an image of no study is a study of its own."""
        return self.attributes.get("StudyInstanceUID") or f"{self.instance} {self.digest}"

    def values(self) -> dict[str, str | None]:
        """Every item of FORMAT.md §2 with its value."""
        values = dict(self.attributes) | {content.PIXELS: str(self.digest)}
        if self.decoded is not None:
            if not self.decoder:
                raise FixInput("a decoded digest needs the name of its decoder")
            values[content.DECODED] = f"{self.decoded} {self.decoder}"
        return values


@dataclass(frozen=True)
class Opening:
    """What opens an image's record: its id, content, profile, leaves and salts. `generator` is set where the image, or one
    that it was made of, is declared synthetic."""

    record_id: bytes
    content: bytes
    profile: str
    leaves: tuple[bytes, ...]
    salts: Salts
    generator: str | None = None


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
    kept: bytes | None = None
    generator: str | None = None
    deposit: bytes | None = None
    """The secret under which its evidence can be left with others (`ledger.core.deposit`)."""


@dataclass(frozen=True)
class Stated:
    """A signed record that commits to no image of its own: a step of custody, a manifest, an approval."""

    signed: SignedRecord
    record_id: bytes
    generator: str | None = None


@dataclass(frozen=True)
class Claim:
    """What a record without an image of its own says: its content, profile and the members of its type; `generator` where it
    is about an image that is declared synthetic."""

    content: bytes
    profile: str
    own: Mapping[str, Any]
    generator: str | None = None


@dataclass(frozen=True)
class Receipt:
    """What signing answers: `is_new` is False where this key had signed the very same image before."""

    record_id: bytes
    counter: int
    is_new: bool


class Signer(Protocol):
    """A key that signs 32-byte digests with 64 bytes r || s, low s."""

    @property
    def key(self) -> bytes: ...

    def sign(self, digest: bytes) -> bytes: ...


class Journal(Protocol):
    """The signer's own durable book. Every method may raise TryLater, after which nothing of that call has happened."""

    def study_secrets(self, studies: Sequence[str]) -> Mapping[str, bytes]:
        """The 32-byte secret of each study, made and made durable where it is new."""

    def tail(self, key: bytes) -> tuple[int, bytes] | None:
        """The (counter, record id) of the key's newest record."""

    def by_content(
        self, key: bytes, type_name: str, contents: Sequence[bytes], own: Mapping[str, Any] = NOTHING
    ) -> Mapping[bytes, tuple[int, bytes]]:
        """content -> (counter, record id) of those that the key has signed already in a record of this type with an image and
        these members of its own."""

    def synthetic(self, digests: Sequence[str]) -> Mapping[str, str]:
        """pixel digest -> generator, of those that are declared synthetic here."""

    def append(self, records: Sequence[Sealed | Stated]) -> None:
        """All or none, on disk when it returns. Raises TryLater where another process took the slot first: read the tail
        again."""


class Sealer:
    """Signs records with one key: counters without gaps, each naming the one before."""

    def __init__(self, journal: Journal, signer: Signer, domain: Domain, clock: Callable[[], float]) -> None:
        self._journal, self._signer, self._domain, self._clock = journal, signer, domain, clock

    @property
    def key(self) -> bytes:
        return self._signer.key

    def seal(self, images: Sequence[Sealable], beacon: Beacon, beacon_time: int, generator: str | None = None) -> list[Receipt]:
        """Seals a batch, all or none; the receipts are in the order of `images`. With a `generator` as declared synthetic.

        The claimed time is the signer's clock, or the beacon's block time where the clock is behind a block that it has seen.
        Raises NeedPermission where pixels that are declared synthetic here would become an acquisition.
        """
        secrets = self._journal.study_secrets([image.study for image in images])
        kind, own = (AcquisitionRecord, {}) if generator is None else (SyntheticRecord, {"generator": generator})
        drafts = []
        for image in images:
            secret = secrets[image.study]
            key = content.image_key(secret, str(image.digest), image.instance)
            drafts.append(_Draft(kind, own=own, generator=generator, image=_Image.of(image, secret, key)))
        if generator is None:
            self._refuse_synthetic(images)
        return self._sign(drafts, beacon, beacon_time)

    def receive(self, images: Sequence[Sealable], beacon: Beacon, beacon_time: int) -> list[Receipt]:
        """Signs that this key holds images of which no record is known: a GatewayRecord each. As `seal`, all or none."""
        secrets = self._journal.study_secrets([image.study for image in images])
        drafts = []
        for image in images:
            secret = secrets[image.study]
            key = content.image_key(secret, str(image.digest), image.instance)
            drafts.append(_Draft(GatewayRecord, own={}, generator=None, image=_Image.of(image, secret, key)))
        return self._sign(drafts, beacon, beacon_time)

    def derive(
        self, child: Sealable, parents: Sequence[Opening], statement: Statement, beacon: Beacon, beacon_time: int
    ) -> Receipt:
        """Signs how `child` was made from sealed images: its kept items have the first parent's salts.

        Raises FixInput naming each item that differs from the first parent's though the statement does not say so, or may not;
        NeedPermission where the child's pixels are declared synthetic here and no parent is.
        """
        _refuse_false(child, parents[0], statement)
        ids = tuple(parent.record_id for parent in parents)
        generator = next((parent.generator for parent in parents if parent.generator), None)
        if generator is None:
            self._refuse_synthetic([child])
        secret = self._journal.study_secrets([child.study])[child.study]
        kept = {name: parents[0].salts.salt(name) for name in content.ITEMS if name not in statement.changed}
        key = content.derived_key(secret, ids[0], child.values())
        bound = statement.with_salts(key, b"".join(kept.values()))
        own = {"parents": ids, "action": bound.action, "statement": bound.text()}
        draft = _Draft(CustodyRecord, own=own, generator=generator, image=_Image.of(child, secret, key, kept))
        return self._sign([draft], beacon, beacon_time)[0]

    def state(
        self,
        kind: type[Record],
        claims: Sequence[Claim],
        beacon: Beacon,
        beacon_time: int,
    ) -> list[Receipt]:
        """Signs records without an image of their own, all or none."""
        drafts = [_Draft(kind, claim.own, claim.generator, claim=claim) for claim in claims]
        return self._sign(drafts, beacon, beacon_time)

    def _sign(self, drafts: Sequence[_Draft], beacon: Beacon, beacon_time: int) -> list[Receipt]:
        if not drafts:
            return []
        images = [draft.content for draft in drafts if draft.image is not None]
        asked = (self._signer.key, drafts[0].kind.TYPE, images, drafts[0].own)
        known = dict(self._journal.by_content(*asked)) if images else {}
        tail = self._journal.tail(self._signer.key)
        counter, previous = (tail[0] + 1, tail[1]) if tail else (0, NO_RECORD)
        claimed = max(int(self._clock()), beacon_time)
        receipts: list[Receipt] = []
        written: list[Sealed | Stated] = []
        for draft in drafts:
            if draft.image is not None and draft.content in known:
                receipts.append(Receipt(known[draft.content][1], known[draft.content][0], is_new=False))
                continue
            head = (draft.content, draft.profile, self._signer.key, counter, previous, claimed, beacon.number, beacon.hash)
            record = draft.kind(*head, **draft.own)
            _refuse_malformed(record)
            record_id = record.id(self._domain)
            written.append(draft.written(SignedRecord(record, self._signer.sign(record_id)), record_id))
            receipts.append(Receipt(record_id, counter, is_new=True))
            if draft.image is not None:
                known[draft.content] = (counter, record_id)
            counter, previous = counter + 1, record_id
        if written:
            self._journal.append(written)
        return receipts

    def _refuse_synthetic(self, images: Sequence[Sealable]) -> None:
        found = self._journal.synthetic([str(one) for image in images for one in (image.digest, image.decoded) if one])
        if found:
            names = ", ".join(sorted(set(found.values())))
            raise NeedPermission(
                f"{len(found)} of these images have pixels that are declared synthetic (generated by {names}): "
                "they are no acquisitions and are not sealed as such"
            )


@dataclass(frozen=True)
class _Image:
    """What is kept of an image beside its signed record."""

    sealable: Sealable
    committed: Content
    key: bytes
    find: bytes
    kept: bytes | None

    @classmethod
    def of(cls, image: Sealable, secret: bytes, key: bytes, kept: Mapping[str, bytes] | None = None) -> _Image:
        find = content.Finder(content.find_key(secret))
        tokens = find.token(content.PIXELS, str(image.digest)) + find.token("SOPInstanceUID", image.instance)
        committed = content.commit(image.values(), Salts(key, kept or {}))
        return cls(image, committed, key, tokens, None if kept is None else b"".join(kept.values()))


@dataclass(frozen=True)
class _Draft:
    """A record before it has its place in the key's chain: of an image, or a `claim` without one."""

    kind: type[Record]
    own: Mapping[str, Any]
    generator: str | None
    image: _Image | None = None
    claim: Claim | None = None

    @property
    def content(self) -> bytes:
        return self.image.committed.root if self.image else self.claim.content if self.claim else b""

    @property
    def profile(self) -> str:
        if self.image is None:
            return self.claim.profile if self.claim else ""
        return f"{self.image.sealable.digest.profile}/{content.ATTRIBUTE_LIST}"

    def written(self, signed: SignedRecord, record_id: bytes) -> Sealed | Stated:
        if self.image is None:
            return Stated(signed, record_id, self.generator)
        image, read = self.image, self.image.sealable
        return Sealed(
            signed,
            record_id,
            image.committed.leaves,
            image.key,
            read.study,
            image.find,
            read.instance,
            read.digest,
            read.decoder,
            image.kept,
            self.generator,
            deposit.secret_of(str(read.digest), read.attributes),
        )


def _refuse_malformed(record: Record) -> None:
    """Nothing is signed that no verifier would read."""
    if isinstance(record, CustodyRecord):
        try:
            Statement.of(record)
        except EvidenceInvalid as error:
            raise FixInput(f"no such record is signed: {error}") from error


def changed_items(child: Sealable, parent: Opening) -> tuple[str, ...]:
    """The items of FORMAT.md §2 in which an image differs from a sealed one, in their order."""
    values = child.values()
    return tuple(name for name in content.ITEMS if not content.opens(parent.leaves, parent.salts, name, values.get(name)))


def _refuse_false(child: Sealable, parent: Opening, statement: Statement) -> None:
    changed = changed_items(child, parent)
    undeclared = [name for name in changed if name not in statement.changed]
    forbidden = [name for name in statement.changed if name not in statement.allowed]
    if undeclared or forbidden:
        raise FixInput(
            f"{statement.operation} may not change {', '.join(dict.fromkeys([*forbidden, *undeclared]))}, and here it differs "
            "from the parent's: no receipt is signed"
        )
