"""Finding the seals that may be an image's: step 2 of the verification in FORMAT.md §9."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ledger.core import content, stateproof
from ledger.core.certificates import Certificate, device_id
from ledger.core.errors import EvidenceInvalid
from ledger.core.evidence import Bundle, Entry, Seal
from ledger.core.pixels import PixelDigest
from ledger.core.proof import Proofs
from ledger.core.records import Approval, CustodyRecord, GatewayRecord
from ledger.core.trust import Facts, Trust

OPENING_LIMIT = 1024
"""Without a token's hit, this many seals of a bundle are tried by opening their leaves."""

CANDIDATE_LIMIT = 64
"""Seals of one bundle that are judged for one image: a hostile bundle costs no more."""


@dataclass(frozen=True)
class Subject:
    """The image to be verified, as read: normalised attributes, and its digests by profile.

    Iterating over `digests` gives the profiles that the image would be sealed with; `refusals` says why another has none.
    Asking for one may raise Unreadable, which gives NOT_CHECKED. Attributes are keyed by DICOM keyword; absent ones are None.
    """

    attributes: Mapping[str, str | None]
    digests: Mapping[str, PixelDigest]
    refusals: Mapping[str, str] = field(default_factory=dict)

    @property
    def instance(self) -> str:
        return self.attributes.get("SOPInstanceUID") or ""


class Evidence:
    """All bundles that a verifier was given, with their proofs, for one trust file and one set of facts."""

    def __init__(self, bundles: Iterable[Bundle], trust: Trust, facts: Facts | None = None) -> None:
        self.trust, self.facts = trust, facts or Facts()
        self.bundles = tuple(bundles)
        self._proofs: dict[int, Proofs] = {}
        self._studies = [_studies(bundle) for bundle in self.bundles]
        self._slots: dict[tuple[bytes, int], list[Entry]] = {}
        self._entries: dict[int, Mapping[bytes, Entry]] = {}
        self._followers: dict[int, Mapping[bytes, list[Entry]]] = {}
        self._loose: dict[int, Mapping[bytes, list[Entry]]] = {}
        self._with_gateway: dict[int, bool] = {}
        for bundle in self.bundles:
            for entry in bundle.entries:
                self._slots.setdefault((entry.record.key, entry.record.counter), []).append(entry)

    @cached_property
    def issuers(self) -> tuple[Certificate, ...]:
        """The certificates of the authorities that the trust file accepts."""
        return tuple(certificate for _, certificate in self.trust.issuers())

    def profiles(self) -> frozenset[str]:
        """The digest profiles that the records name: what a Subject's digests should cover."""
        return frozenset(seal.record.profile.partition("/")[0] for bundle in self.bundles for seal in bundle.seals)

    def proofs(self, number: int) -> Proofs:
        if number not in self._proofs:
            self._proofs[number] = Proofs(self.bundles[number], self.trust, self.facts)
        return self._proofs[number]

    def state_block(self, number: int, state: int) -> int | None:
        """The block number of a bundle's state, None where its header cannot be read."""
        try:
            return stateproof.parse_header(self.bundles[number].states[state].header).number
        except EvidenceInvalid:
            return None

    def candidates(self, subject: Subject) -> Iterator[tuple[int, Seal]]:
        """Step 2: (bundle number, seal) of every seal that may be this image's; where there are too many, those of its
        SOPInstanceUID before those that only have its pixels, as a black frame's do."""
        asked = list(_asked(subject)) if any(self._studies) else []
        for number, bundle in enumerate(self.bundles):
            hits: set[int] = set()
            own: set[int] = set()
            for finder, seals in self._studies[number]:
                for item, value in asked:
                    found = seals.get(finder.token(item, value), ())
                    hits.update(found)
                    if item != content.PIXELS:
                        own.update(found)
            if not hits and len(bundle.seals) <= OPENING_LIMIT:
                hits.update(index for index, seal in enumerate(bundle.seals) if _is_of(seal, subject))
            chosen = sorted(hits, key=lambda index: (index not in own, index))[:CANDIDATE_LIMIT]
            yield from ((number, bundle.seals[index]) for index in sorted(chosen))

    def has_gateway(self, number: int) -> bool:
        """Whether a bundle has images of unknown origin, for which step 11 may count as for those without a record."""
        if number not in self._with_gateway:
            self._with_gateway[number] = any(
                isinstance(entry.record.value, GatewayRecord) for entry in self.bundles[number].entries
            )
        return self._with_gateway[number]

    def rivals(self, entry: Entry) -> list[Entry]:
        """Other records in the same slot (key and counter) of a key: one that signed two is not to be believed."""
        same = self._slots[entry.record.key, entry.record.counter]
        return [other for other in same if other.record != entry.record]

    def record(self, number: int, record_id: bytes) -> Entry | None:
        """The record of a bundle by its id, where it has leaves before where it has none."""
        if number not in self._entries:
            bundle, domain = self.bundles[number], self.trust.domain
            entries = sorted(bundle.entries, key=lambda entry: bool(entry.leaves))
            self._entries[number] = {entry.record.value.id(domain): entry for entry in entries}
        return self._entries[number].get(record_id)

    def followers(self, number: int, record_id: bytes) -> list[Entry]:
        """The records of a bundle that name this one: as a parent, or as what they approve."""
        if number not in self._followers:
            followers: dict[bytes, list[Entry]] = {}
            bundle = self.bundles[number]
            for entry in bundle.entries:
                record = entry.record.value
                named = record.parents if isinstance(record, CustodyRecord) else ()
                for one in (record.content,) if isinstance(record, Approval) else named:
                    followers.setdefault(one, []).append(entry)
            self._followers[number] = followers
        return self._followers[number].get(record_id, [])

    def loose(self, number: int, root: bytes) -> list[Entry]:
        """The custody records of a bundle with this content that follow none, or a record which is not there."""
        if number not in self._loose:
            loose: dict[bytes, list[Entry]] = {}
            for entry in self.bundles[number].entries:
                record = entry.record.value
                if isinstance(record, CustodyRecord):
                    there = [self.record(number, parent) for parent in record.parents]
                    if not there or None in there:
                        loose.setdefault(record.content, []).append(entry)
            self._loose[number] = loose
        return self._loose[number].get(root, [])


def claimed_device(subject: Subject) -> bytes | None:
    """The id of the device that an image names itself as made by; None where it does not name one whole."""
    names = [subject.attributes.get(name) for name in ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber")]
    manufacturer, model, serial = names
    if not manufacturer or not model or not serial:
        return None
    return device_id(manufacturer, model, serial)


def has_pixels(seal: Seal, leaves: Sequence[bytes], subject: Subject) -> bool:
    """Whether the sealed pixels are the subject's: as sealed, or as the named decoder decodes a lossy codestream."""
    sealed = subject.digests.get(seal.record.profile.partition("/")[0])
    if sealed is not None and content.opens(leaves, seal.salts, content.PIXELS, str(sealed)):
        return True
    decoded = subject.digests.get("px1-sha256")
    return (
        seal.decoder is not None
        and decoded is not None
        and content.opens(leaves, seal.salts, content.DECODED, f"{decoded} {seal.decoder}")
    )


def _asked(subject: Subject) -> Iterator[tuple[str, str]]:
    """The (item, value) pairs whose tokens an image is looked up by."""
    for digest in subject.digests.values():
        yield content.PIXELS, str(digest)
    if subject.instance:
        yield "SOPInstanceUID", subject.instance


def _studies(bundle: Bundle) -> list[tuple[content.Finder, dict[bytes, list[int]]]]:
    """For each study of a bundle, what makes its look-up tokens, and token -> numbers of its seals."""
    studies: list[tuple[content.Finder, dict[bytes, list[int]]]] = [(content.Finder(key), {}) for key in bundle.studies]
    for number, seal in enumerate(bundle.seals):
        for token in seal.tokens:
            studies[seal.study][1].setdefault(token, []).append(number)
    return studies


def _is_of(seal: Seal, subject: Subject) -> bool:
    try:
        leaves = seal.leaf_hashes
        if len(leaves) != len(content.ITEMS):
            return False
        same_instance = bool(subject.instance) and content.opens(leaves, seal.salts, "SOPInstanceUID", subject.instance)
        return same_instance or has_pixels(seal, leaves, subject)
    except EvidenceInvalid:
        return False
