"""A trial to audit: small images of many visits on disk, sealed, half of them de-identified, with their transmittal.

The files are those of `scanseal transmittal export`, written by the product's own code; keys, log and chain are the test
simulator's, because an anvil would add nothing that an offline audit reads.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pydicom import dcmread

from benchmarks import files, rounds
from ledger.core import content, evidence, manifest, merkle
from ledger.core.custody import Statement
from ledger.core.evidence import Entry as Record
from ledger.core.evidence import Included, RecordEntry, RecordPart, Seal
from ledger.core.manifest import Account, Entry, Header, Origin
from ledger.core.records import ManifestRecord, Role, SignedRecord
from ledger.core.search import Subject
from ledger.dicom import read
from ledger.keys.signers import SoftwareSigner
from ledger.wiring.bundles import SUFFIX, read_bundle
from ledger.wiring.manifests import MANIFEST
from ledger.wiring.site import write_trust
from ledger.wiring.transmittal import EVIDENCE_SIZE
from tests.simulators.ledger import World

STATE_BLOCK = 8
VISITS_A_SUBJECT = 4
NAME, SITE = "BENCH-1", "Bench site"
_PLACES = {"instance": "90000000", "visit": "80000000", "subject": "S0000000"}
_DEIDENTIFIED = Statement(
    "de-identified",
    {
        "profile": "ps3.15-basic",
        "options": [],
        "changed": [name for name in content.ITEMS if name in ("PatientName", "PatientID", "SOPInstanceUID")],
    },
)


@dataclass(frozen=True)
class Image:
    """One image of the trial: the `number`-th, of the `visit`-th visit; its pixel values are the last `pixels` bytes."""

    path: Path
    number: int
    visit: int
    pixels: int


@dataclass(frozen=True)
class Trial:
    """What an auditor is given: a folder with `images`, `transmittal`, `trust.toml` and `visits.csv`."""

    folder: Path
    images: tuple[Image, ...]
    derived: int

    def arguments(self, workbook: Path) -> list[str]:
        """Of `scanseal`, to audit it offline into a workbook."""
        named = {
            "--manifest": self.folder / "transmittal",
            "--images": self.folder / "images",
            "--trust": self.folder / "trust.toml",
            "--protocol": self.folder / "visits.csv",
            "--workbook": workbook,
        }
        return ["audit", "run", *(str(part) for pair in named.items() for part in pair), "--offline", "--json"]


class Pictures:
    """Writes image files: pydicom's CT header of more than 250 elements, and `edge` x `edge` pixels of 8 bits."""

    def __init__(self, folder: Path, edge: int) -> None:
        folder.mkdir(parents=True)
        self._edge = edge
        dataset = dcmread(files.make(folder / "model", "CT", 1, edge)[0].path)
        dataset.StudyInstanceUID = f"{files.ROOT_UID}.7.{_PLACES['visit']}"
        dataset.SeriesInstanceUID = f"{files.ROOT_UID}.7.{_PLACES['visit']}.1"
        dataset.SOPInstanceUID = f"{files.ROOT_UID}.7.{_PLACES['visit']}.1.{_PLACES['instance']}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.PatientID = dataset.PatientName = _PLACES["subject"]
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit, dataset.PixelRepresentation = 7, 0
        for name in ("SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue"):
            if name in dataset:
                del dataset[name]
        dataset.PixelData = self._pixels(0)
        dataset.save_as(folder / "model.dcm", enforce_file_format=True)
        self._head = (folder / "model.dcm").read_bytes()[: -len(dataset.PixelData)]

    def write(self, path: Path, number: int, visit: int) -> Image:
        """The image of that number, the same bytes each time."""
        head = self._head
        for place, value in (("instance", 90_000_000 + number), ("visit", 80_000_000 + visit)):
            head = head.replace(_PLACES[place].encode(), str(value).encode())
        pixels = self._pixels(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(head.replace(_PLACES["subject"].encode(), subject_of(visit).encode()) + pixels)
        return Image(path, number, visit, len(pixels))

    def _pixels(self, number: int) -> bytes:
        size = self._edge * self._edge
        return hashlib.shake_128(struct.pack("<Q", number)).digest(size + size % 2)


def subject_of(visit: int) -> str:
    return f"S{visit // VISITS_A_SUBJECT:07}"


def visit_of(visit: int) -> str:
    return f"V{visit % VISITS_A_SUBJECT + 1}"


def is_derived(visit: int) -> bool:
    """Whether the images of a visit are de-identified copies."""
    return visit % 2 == 1


def make(folder: Path, count: int, edge: int, per_visit: int, *, flat: bool) -> tuple[Trial, Pictures]:
    """A trial of `count` images, `per_visit` in each visit, every second visit of de-identified ones; in a folder for each
    visit, or `flat` in one, named so that they don't lie in the order of the list."""
    pictures = Pictures(folder / "making", edge)
    making = _Making(folder)
    images = []
    for number in range(count):
        visit = number // per_visit
        place = Path(subject_of(visit), visit_of(visit), f"{number:08}.dcm")
        if flat:
            place = Path(hashlib.sha256(b"%d" % number).hexdigest()[:32] + ".dcm")
        path = folder / "images" / place
        images.append(pictures.write(path, number, visit))
    making.seal(images)
    making.finish()
    return Trial(folder, tuple(images), making.derived), pictures


class _Making:
    """Seals the images bundle by bundle; when all are in the log, anchors it and gives each bundle its proofs."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._world = folder, World()
        self._evidence = folder / "transmittal" / "evidence"
        self._evidence.mkdir(parents=True)
        self._gateway, _ = self._world.newcomer(Role.TRANSFORM)
        find_key = hashlib.sha256(b"find").digest()
        self._finder = content.Finder(find_key)
        self._header = Header(
            format=manifest.FORMAT,
            kind="transmittal",
            trial=NAME,
            site=SITE,
            nonce=bytes(16),
            find_key=find_key,
        )
        self._entries: list[Entry] = []
        self._visits: dict[int, int] = {}
        self.derived = 0

    def seal(self, images: Sequence[Image]) -> None:
        iterator = iter(images)
        for number, chunk in enumerate(iter(lambda: list(islice(iterator, EVIDENCE_SIZE)), [])):
            name = f"{number:04d}{SUFFIX}"
            self._write(name, *self._sealed(chunk, name))
            rounds.say(f"sealed {len(self._entries):,} of {len(images):,}")

    def _sealed(self, chunk: Sequence[Image], name: str) -> tuple[list[Seal], list[Record], list[bytes]]:
        """The seals of a bundle, the records that they come from, and the find keys of the studies."""
        studies = {visit: place for place, visit in enumerate(dict.fromkeys(image.visit for image in chunk))}
        seals: list[Seal] = []
        parents: list[Record] = []
        for image in chunk:
            self._world.study_secret = _secret(image.visit)
            subject = _subject(image.path)
            if is_derived(image.visit):
                origin = self._world.seal(_before(subject))
                seal = self._world.derive(subject, origin, _DEIDENTIFIED, signer=self._gateway)
                parents.append(RecordEntry(record=origin.record, signature=origin.signature, leaves=origin.leaves))
                self.derived += 1
            else:
                seal = origin = self._world.seal(subject)
            seals.append(seal.model_copy(update={"study": studies[image.visit]}))
            self._list(image, subject, seal, origin, name)
        return seals, parents, [content.find_key(_secret(visit)) for visit in studies]

    def _list(self, image: Image, subject: Subject, seal: Seal, origin: Seal, name: str) -> None:
        token = self._finder.token
        find = token(content.PIXELS, str(subject.digests["px1-sha256"])) + token("SOPInstanceUID", subject.instance)
        self._visits[image.visit] = self._visits.get(image.visit, 0) + 1
        self._entries.append(
            Entry(
                subject=subject_of(image.visit),
                visit=visit_of(image.visit),
                status="sent",
                record=seal.record.value.id(self._world.domain),
                find=find,
                origin=Origin(key=origin.record.key, counter=origin.record.counter),
                evidence=name,
            )
        )

    def _write(
        self, name: str, seals: Sequence[Seal], records: Sequence[Record], studies: Sequence[bytes], **more: Any
    ) -> None:
        bundle = self._world.bundle(list(seals), records=tuple(records), studies=tuple(studies), **more)
        (self._evidence / name).write_bytes(evidence.write(bundle))

    def finish(self) -> None:
        """The list, its record, the anchor and all proofs; trust file and protocol."""
        self._sign()
        log = _Tree([merkle.leaf_hash(entry) for entry in self._world.entries])
        places = {hashlib.sha256(entry).digest(): place for place, entry in enumerate(self._world.entries)}

        def included(record: Record) -> Record:
            index = places[hashlib.sha256(record.signed.entry()).digest()]
            return record.model_copy(update={"included": Included(anchor=0, index=index, path=b"".join(log.path(index)))})

        anchored = self._world.anchored([], state_block=STATE_BLOCK)
        proofs = {"anchors": anchored.anchors, "states": anchored.states}
        for path in sorted(self._evidence.iterdir()):
            bundle = read_bundle(path)
            whole = {"seals": tuple(map(included, bundle.seals)), "records": tuple(map(included, bundle.records))}
            path.write_bytes(evidence.write(bundle.model_copy(update=whole | proofs)))
        write_trust(self._folder / "trust.toml", self._world.trust(STATE_BLOCK))
        rows = [f"{subject_of(visit)},{visit_of(visit)},,{count}\n" for visit, count in self._visits.items()]
        (self._folder / "visits.csv").write_text("subject,visit,due,minimum_images\n" + "".join(rows))

    def _sign(self) -> None:
        key, (last, _) = self._world.signer.key, self._world.tail[self._world.signer.key]
        account = Account(key=key, first=0, last=last)
        header = self._header.model_copy(update={"accounts": (account,)})
        with (self._folder / "transmittal" / MANIFEST).open("wb") as file:
            digest = manifest.write(header, self._entries, file)
        own = {"kind": digest.kind, "count": digest.count}
        self._write(f"manifest{SUFFIX}", [], [_manifest_record(self._world, self._gateway, digest.content, own)], [])


def _manifest_record(world: World, signer: SoftwareSigner, root: bytes, own: dict[str, Any]) -> RecordEntry:
    counter, previous = world.tail[signer.key]
    block = world.beacon_block
    place = (world.time_of(block) + 2, block, world.hash_of(block))
    record = ManifestRecord(root, manifest.PROFILE, signer.key, counter + 1, previous, *place, **own)
    signed = SignedRecord(record, signer.sign(record.id(world.domain)))
    world.entries.append(signed.entry())
    return RecordEntry(record=RecordPart.of(record), signature=signed.signature)


def _secret(visit: int) -> bytes:
    return hashlib.sha256(b"study %d" % visit).digest()


def _subject(path: Path) -> Subject:
    image = read(path)
    return Subject(image.attributes, {"px1-sha256": image.digest("px1-sha256")})


def _before(subject: Subject) -> Subject:
    """The image as it was at the scanner."""
    patient = {"PatientName": "DOE^JANE", "PatientID": f"H{subject.attributes['PatientID']}"}
    return Subject({**subject.attributes, **patient, "SOPInstanceUID": f"{subject.instance}.1"}, subject.digests)


class _Tree:
    """All nodes of an RFC 9162 tree, for the paths of all its leaves."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._levels = [list(leaves)]
        while len(self._levels[-1]) > 1:
            self._levels.append(list(_above(self._levels[-1])))

    def path(self, index: int) -> Iterator[bytes]:
        for level in self._levels[:-1]:
            if index ^ 1 < len(level):
                yield level[index ^ 1]
            index >>= 1


def _above(level: Sequence[bytes]) -> Iterator[bytes]:
    for place in range(0, len(level), 2):
        left, right = level[place], level[place + 1 : place + 2]
        yield merkle.node_hash(left, right[0]) if right else left
