"""What stays in memory of evidence that many images have in common, and the evidence beside image files."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache
from pathlib import Path
from typing import Generic, TypeVar

from ledger.core.errors import EvidenceInvalid, Unreadable
from ledger.core.evidence import Bundle
from ledger.wiring.bundles import SUFFIX, read_bundle

RECORDS_KEPT = 4096
"""Records of the bundles that one `Kept` keeps: each takes some 10 kB, and with many of them alive Python's search for garbage
takes longer than the verifying."""

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """Keeps the values that were asked for last, together no heavier than `limit`; the last one however heavy it is."""

    def __init__(self, limit: int) -> None:
        self._limit, self._total = limit, 0
        self._values: dict[Hashable, tuple[Value, int]] = {}

    def get(self, key: Hashable, make: Callable[[], Value], weigh: Callable[[Value], int]) -> Value:
        """The value of a key, made where it is not kept. What `make` raises is not kept."""
        known = self._values.pop(key, None)
        if known is None:
            value = make()
            known = value, weigh(value)
            self._total += known[1]
        self._values[key] = known
        while self._total > self._limit and len(self._values) > 1:
            self._total -= self._values.pop(next(iter(self._values)))[1]
        return known[0]


def weight(bundle: Bundle) -> int:
    """Of a bundle, in records."""
    return 1 + len(bundle.seals) + len(bundle.records)


class Beside:
    """The evidence next to image files."""

    def __init__(self) -> None:
        self._files = lru_cache(maxsize=64)(_seal_files)
        self._bundles: Kept[tuple[Bundle, frozenset[str]]] = Kept(RECORDS_KEPT)

    def of(self, path: str) -> tuple[tuple[Bundle, ...], frozenset[str], str | None]:
        """Next to an image file or an archive: `<name>.seal.json`, else all `*.seal.json` of its folder; the digest profiles
        that they name; and what is wrong with a bundle that cannot be used."""
        place = Path(path.partition("!/")[0])
        own = place.with_name(place.name + SUFFIX)
        files = (own,) if own.is_file() else self._files(str(place.parent))
        bundles: list[Bundle] = []
        profiles: frozenset[str] = frozenset()
        damage = None
        for file in files:
            try:
                bundle, named = self._bundle(file)
            except (EvidenceInvalid, Unreadable) as error:
                damage = str(error)
            else:
                bundles.append(bundle)
                profiles |= named
        return tuple(bundles), profiles, damage

    def _bundle(self, file: Path) -> tuple[Bundle, frozenset[str]]:
        def read() -> tuple[Bundle, frozenset[str]]:
            bundle = read_bundle(file)
            return bundle, frozenset(seal.record.profile.partition("/")[0] for seal in bundle.seals)

        return self._bundles.get((str(file), file.stat().st_mtime_ns), read, lambda known: weight(known[0]))


def _seal_files(folder: str) -> tuple[Path, ...]:
    try:
        return tuple(sorted(Path(folder).glob(f"*{SUFFIX}")))
    except OSError:
        return ()
