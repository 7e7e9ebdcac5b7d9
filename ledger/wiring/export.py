"""Writing evidence bundles of a site to files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledger.core import content, evidence
from ledger.core.errors import FixInput, NeedPermission, Refused, TryLater, Unreadable
from ledger.core.search import Subject, has_pixels
from ledger.store.records import RecordReader, StoredRecord
from ledger.wiring.bundles import SUFFIX, Exporter
from ledger.wiring.images import Found, subject
from ledger.wiring.verification import hashes_of


@dataclass(frozen=True)
class Written:
    """What was written; `missing` are images that have no seal here."""

    files: int
    seals: int
    pending: int
    size: int
    missing: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "files": self.files,
            "seals": self.seals,
            "pending": self.pending,
            "bytes": self.size,
            "not_sealed_here": list(self.missing),
        }


class Export:
    """Writes bundles: one file for all, or one an image into a folder."""

    def __init__(self, journal: RecordReader, exporter: Exporter) -> None:
        self._journal, self._exporter = journal, exporter

    def write(
        self, images: Iterable[Found] | None, output: Path, *, with_tiles: bool, progress: Callable[[int], None]
    ) -> Written:
        """The evidence of these images, or of everything that is sealed here."""
        if images is None:
            if output.is_dir() or not output.suffix:
                raise FixInput(f"{output} is a folder: one bundle an image needs the images' PATHS")
            return self._one_file(self._journal.all_images(), output, with_tiles, ())
        missing: list[str] = []
        found = self._found(images, missing, progress)
        if not output.is_dir() and output.suffix:
            every = {seal.number: seal for _, seals in found for seal in seals}
            return self._one_file(every.values(), output, with_tiles, missing)
        total = Written(0, 0, 0, 0, ())
        for path, seals in found:
            one = self._one_file(seals, output / (Path(path).name + SUFFIX), with_tiles, ())
            total = Written(total.files + 1, total.seals + one.seals, total.pending + one.pending, total.size + one.size, ())
        return Written(total.files, total.seals, total.pending, total.size, tuple(missing))

    def _found(
        self, images: Iterable[Found], missing: list[str], progress: Callable[[int], None]
    ) -> Iterator[tuple[str, list[StoredRecord]]]:
        hashes = hashes_of([*self._journal.profiles(), "px1-sha256"])
        for count, found in enumerate(images, 1):
            progress(count)
            try:
                one = subject(found, hashes)
                found_here = self._journal.find([str(digest) for digest in one.digests.values()], one.instance)
                seals = [stored for stored in found_here if _is_of(stored, self._journal, one)]
            except (Unreadable, Refused):
                seals = []
            if seals:
                yield found.path, seals
            else:
                missing.append(found.path)

    def _one_file(self, seals: Iterable[StoredRecord], output: Path, with_tiles: bool, missing: Iterable[str]) -> Written:
        bundle = self._exporter.bundle(seals, with_tiles=with_tiles)
        if not bundle.seals:
            return Written(0, 0, 0, 0, tuple(missing))
        written = evidence.write(bundle)
        replace(output, written)
        pending = sum(1 for seal in bundle.seals if seal.included is None)
        return Written(1, len(bundle.seals), pending, len(written), tuple(missing))


def _is_of(stored: StoredRecord, journal: RecordReader, image: Subject) -> bool:
    """Whether a record is of exactly this image. The record of an original that has a copy's pixels is not the copy's: whoever
    gets the copy must not get what opens the original."""
    if stored.image_key is None:
        return False
    opening = journal.opening(stored)
    return has_pixels(stored.seal(0, None, with_tiles=False), opening.leaves, image) and not content.differing(
        opening.leaves, opening.salts, image.attributes
    )


def replace(path: Path, content: bytes) -> None:
    """Writes a file as a whole, or not at all. Raises NeedPermission, or TryLater on a full disk."""
    new = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        kind = TryLater if error.errno == 28 else NeedPermission
        raise kind(f"{path}: cannot be written ({error.strerror})") from error
