"""Making and receipting derived images, file by file: de-identified here, or made by another tool already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ledger.core.deidentification import Option
from ledger.core.errors import FixInput, NeedPermission, Refused, Unreadable
from ledger.dicom import read
from ledger.dicom.deidentify import deidentify
from ledger.register import Receipt
from ledger.wiring.custody import Custody, Derivation
from ledger.wiring.export import replace
from ledger.wiring.images import Found

UID_KEY = "uid key"
"""The site's secret that makes the UIDs of de-identified images: the same for all, so that references between them hold."""


@dataclass(frozen=True)
class Derived:
    """One derived image: its parent's path, its own, the receipt and what it names as changed; or why there is none.

    `warnings` are about what its pixels may still show."""

    parent: str
    child: str | None
    receipt: Receipt | None = None
    changed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str | None = None


class Deriving:
    """One key of a site making receipts of derived images."""

    def __init__(self, custody: Custody, uid_key: bytes) -> None:
        self._custody, self._uid_key, self.warning = custody, uid_key, custody.warning

    def deidentify(
        self,
        parents: Iterable[Found],
        output: Path,
        options: frozenset[Option],
        patient_id: str | None,
        patient_name: str | None,
        tool: str,
    ) -> Iterator[Derived]:
        """De-identifies each image into `output` (a folder, or a file for one image) with its receipt. What exists there is
        made again and comes out the same."""
        made = Derivation("de-identified", options, tool=tool)
        for found in parents:
            target = output / Path(found.path).name if output.is_dir() or not output.suffix else output
            try:
                if "!/" in found.path:
                    raise FixInput("an image in an archive: unpack it first")
                data = Path(found.path).read_bytes()
                child = deidentify(data, options, self._uid_key, patient_id=patient_id, patient_name=patient_name)
                receipt, statement = self._custody.derive([found.read()], read(child.data), made)
                replace(target, child.data)
                warnings = tuple(str(warning) for warning in child.warnings)
                yield Derived(found.path, str(target), receipt, statement.changed, warnings)
            except (Unreadable, Refused, FixInput, NeedPermission) as error:
                yield Derived(found.path, None, error=str(error))

    def existing(self, parents: Sequence[Found], children: Iterable[Found], how: Derivation) -> Iterator[Derived]:
        """Receipts of children that somebody else made. With one parent each child is its child; with several a child's parent
        is the one with the same pixels, but where the operation takes several parents at once."""
        from ledger.core.custody import SEVERAL_PARENTS

        if how.operation in SEVERAL_PARENTS or len(parents) == 1:
            for child in children:
                yield self._receipt(parents, child, how)
            return
        by_pixels: dict[str, list[Found]] = {}
        for parent in parents:
            try:
                by_pixels.setdefault(_pixels(parent), []).append(parent)
            except (Unreadable, Refused) as error:
                yield Derived(parent.path, None, error=str(error))
        for child in children:
            try:
                candidates = by_pixels.get(_pixels(child), [])
            except (Unreadable, Refused) as error:
                yield Derived("", child.path, error=str(error))
                continue
            if not candidates:
                yield Derived("", child.path, error="no parent among these images has its pixels")
                continue
            tried = [self._receipt([candidate], child, how) for candidate in candidates[:1]]
            for candidate in candidates[1:]:
                if tried[-1].receipt is None:
                    tried.append(self._receipt([candidate], child, how))
            yield tried[-1]

    def _receipt(self, parents: Sequence[Found], child: Found, how: Derivation) -> Derived:
        names = ", ".join(parent.path for parent in parents)
        try:
            receipt, statement = self._custody.derive([parent.read() for parent in parents], child.read(), how)
        except (Unreadable, Refused, FixInput, NeedPermission) as error:
            return Derived(names, child.path, error=str(error))
        return Derived(names, child.path, receipt, statement.changed)


def _pixels(found: Found) -> str:
    image = found.read()
    return str(image.digest(image.default_profile("sha256")))
