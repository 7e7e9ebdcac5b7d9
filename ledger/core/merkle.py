"""Merkle trees: RFC 9162 §2.1 hashes and proofs, and the same proofs from C2SP tlog-tiles.

A *leaf hash* is `H(0x00 || d)`, a *node* is `H(0x01 || left || right)`, a root of `n` leaves splits at the largest power of
two below `n`. Every hash is 32 bytes. Everything here is a pure function of its arguments; tiles come from a `ReadTiles`
that the caller gives, all tiles that one answer needs in one call.

A proof shows that a leaf is in, or that a tree is a prefix of, the tree *with that root*. It does not show that the root is
the one that everybody sees: that is the checkpoint's signature and the anchor's job.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from blake3 import blake3

from ledger.core.errors import EvidenceInvalid, FixInput

HASH_SIZE: Final = 32
TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 1 << TILE_HEIGHT
ENTRY_LIMIT: Final = 0xFFFF
"""Bytes of the longest entry that an entry bundle can carry."""


class _Hash(Protocol):
    def update(self, data: bytes | bytearray | memoryview, /) -> object: ...

    def digest(self) -> bytes: ...


_HASHES: Final[dict[str, Callable[[bytes], _Hash]]] = {"sha256": hashlib.sha256, "blake3": blake3}


def _hash(hash_name: str) -> Callable[[bytes], _Hash]:
    try:
        return _HASHES[hash_name]
    except KeyError:
        raise FixInput(f"unknown tree hash {hash_name!r}: use {' or '.join(_HASHES)}") from None


def leaf_hash(data: bytes | bytearray | memoryview, hash_name: str = "sha256") -> bytes:
    """`H(0x00 || data)`, RFC 9162 §2.1.1."""
    state = _hash(hash_name)(b"\x00")
    state.update(data)
    return state.digest()


def node_hash(left: bytes, right: bytes, hash_name: str = "sha256") -> bytes:
    """`H(0x01 || left || right)`, RFC 9162 §2.1.1."""
    return _hash(hash_name)(b"\x01" + left + right).digest()


def _parents(level: Sequence[bytes], new: Callable[[bytes], _Hash]) -> list[bytes]:
    # An odd last node moves up unchanged: the same tree as splitting at the largest power of two.
    above = [new(b"\x01" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)]
    if len(level) % 2:
        above.append(level[-1])
    return above


def root_of(leaf_hashes: Sequence[bytes], hash_name: str = "sha256") -> bytes:
    """MTH of RFC 9162 §2.1.1 over leaf hashes that are already computed; `H("")` for no leaves."""
    new = _hash(hash_name)
    if not leaf_hashes:
        return new(b"").digest()
    level = leaf_hashes
    while len(level) > 1:
        level = _parents(level, new)
    return level[0]


def inclusion_path(leaf_hashes: Sequence[bytes], index: int, hash_name: str = "sha256") -> list[bytes]:
    """PATH(index, leaves) of RFC 9162 §2.1.3.1, lowest node first. `FixInput` when the leaf is outside the tree."""
    _inside(index, len(leaf_hashes))
    new = _hash(hash_name)
    path: list[bytes] = []
    level = leaf_hashes
    while len(level) > 1:
        if index ^ 1 < len(level):
            path.append(level[index ^ 1])
        level = _parents(level, new)
        index >>= 1
    return path


def inclusion_paths(leaf_hashes: Sequence[bytes], hash_name: str = "sha256") -> list[list[bytes]]:
    """`inclusion_path` of every leaf, in the time that one root takes and the paths' own length."""
    new = _hash(hash_name)
    paths: list[list[bytes]] = [[] for _ in leaf_hashes]
    level, height = leaf_hashes, 0
    while len(level) > 1:
        for index, path in enumerate(paths):
            if (sibling := index >> height ^ 1) < len(level):
                path.append(level[sibling])
        level, height = _parents(level, new), height + 1
    return paths


def consistency_path(leaf_hashes: Sequence[bytes], old_size: int, hash_name: str = "sha256") -> list[bytes]:
    """PROOF(old_size, leaves) of RFC 9162 §2.1.4.1. `FixInput` unless 0 < old_size <= number of leaves."""
    return [root_of(leaf_hashes[low:high], hash_name) for low, high in _consistency_ranges(old_size, len(leaf_hashes))]


# ---- verification -------------------------------------------------------------------------------------------------


def root_from_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], hash_name: str = "sha256") -> bytes:
    """The root that `path` leads to from leaf hash `leaf` at `index` in a tree of `size` leaves (RFC 9162 §2.1.3.2).

    Raises `EvidenceInvalid` (step `inclusion`) when the index is outside the tree, a hash is not 32 bytes, or the path has not
    exactly the number of nodes that this index and size ask for. The result proves nothing until compared with a known root.
    """
    if not 0 <= index < size:
        raise EvidenceInvalid(f"leaf {index} is outside a tree of size {size}", "inclusion")
    _hashes(path, leaf=leaf, step="inclusion")
    inner, border = _path_lengths(index, size)
    if len(path) != inner + border:
        raise EvidenceInvalid(
            f"the inclusion proof of leaf {index} in a tree of size {size} has {inner + border} nodes, not {len(path)}",
            "inclusion",
        )
    node = leaf
    for height, sibling in enumerate(path[:inner]):
        left, right = (sibling, node) if index >> height & 1 else (node, sibling)
        node = node_hash(left, right, hash_name)
    return _with_border(node, path[inner:], hash_name)


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes, hash_name: str = "sha256") -> None:
    """Leaf hash `leaf` is number `index` of the tree of `size` leaves with `root`, or `EvidenceInvalid` (step `inclusion`)."""
    if root_from_inclusion(leaf, index, size, path, hash_name) != root:
        raise EvidenceInvalid(f"the inclusion proof of leaf {index} does not lead to the root of size {size}", "inclusion")


def verify_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, path: Sequence[bytes], hash_name: str = "sha256"
) -> None:
    """The old tree is a prefix of the new one (RFC 9162 §2.1.4.2), or `EvidenceInvalid` (step `consistency`).

    Size 0 is refused: every tree extends the empty one, so such a proof says nothing.
    """
    if not 0 < old_size <= new_size:
        raise EvidenceInvalid(f"no consistency proof leads from size {old_size} to size {new_size}", "consistency")
    _hashes(path, old_root=old_root, new_root=new_root, step="consistency")
    # Start from the largest complete subtree that ends at old_size; it needs no node when it is the whole old tree.
    shift = (old_size & -old_size).bit_length() - 1
    inner, border = _path_lengths(old_size - 1, new_size)
    inner -= shift
    seeded = old_size != 1 << shift
    expected = 0 if old_size == new_size else seeded + inner + border
    if len(path) != expected:
        raise EvidenceInvalid(
            f"the consistency proof from size {old_size} to {new_size} has {expected} nodes, not {len(path)}", "consistency"
        )
    if old_size == new_size:
        if old_root != new_root:
            raise EvidenceInvalid(f"two different roots for size {old_size}: the log shows two histories", "consistency")
        return
    old = new = path[0] if seeded else old_root
    rest = path[1:] if seeded else path
    position = (old_size - 1) >> shift
    for height, sibling in enumerate(rest[:inner]):
        if position >> height & 1:
            old = node_hash(sibling, old, hash_name)
            new = node_hash(sibling, new, hash_name)
        else:
            new = node_hash(new, sibling, hash_name)
    if _with_border(old, rest[inner:], hash_name) != old_root:
        raise EvidenceInvalid(f"the consistency proof does not lead to the old root of size {old_size}", "consistency")
    if _with_border(new, rest[inner:], hash_name) != new_root:
        raise EvidenceInvalid(f"the consistency proof does not lead to the new root of size {new_size}", "consistency")


def _path_lengths(index: int, size: int) -> tuple[int, int]:
    # Below the node where the paths of `index` and of the last leaf part, every level has a sibling (inner); above it,
    # only the levels where the tree has a complete left part (border).
    inner = (index ^ (size - 1)).bit_length()
    return inner, (index >> inner).bit_count()


def _with_border(node: bytes, border: Sequence[bytes], hash_name: str) -> bytes:
    for left in border:
        node = node_hash(left, node, hash_name)
    return node


def _hashes(path: Sequence[bytes], *, step: str, **named: bytes) -> None:
    for name, value in named.items():
        if len(value) != HASH_SIZE:
            raise EvidenceInvalid(f"{name.replace('_', ' ')} has {len(value)} bytes, not {HASH_SIZE}", step)
    for position, node in enumerate(path):
        if len(node) != HASH_SIZE:
            raise EvidenceInvalid(f"node {position} of the proof has {len(node)} bytes, not {HASH_SIZE}", step)


def _inside(index: int, size: int) -> None:
    if not 0 <= index < size:
        raise FixInput(f"leaf {index} is outside a tree of size {size}")


# ---- tiles (C2SP tlog-tiles) --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """`width` hashes of complete subtrees of 256**level leaves, starting with subtree `index * 256`; 1 <= width <= 256."""

    level: int
    index: int
    width: int

    @property
    def path(self) -> str:
        """The tile's name in a static mirror: `tile/<L>/<N>[.p/<W>]`."""
        return f"tile/{self.level}/{_numbered(self.index, self.width)}"


ReadTiles = Callable[[Sequence[Tile]], Sequence[bytes]]
"""The bytes of each tile asked for, in that order, `32 * width` each: a wider stored tile is cut to the width asked for."""


def entries_path(index: int, width: int) -> str:
    """The name of an entry bundle in a static mirror: `tile/entries/<N>[.p/<W>]`."""
    return f"tile/entries/{_numbered(index, width)}"


def pack_entries(entries: Iterable[bytes]) -> bytes:
    """Entries as an entry bundle: each with its length in front, a big-endian u16. `FixInput` over 65,535 bytes."""
    parts: list[bytes] = []
    for entry in entries:
        if len(entry) > ENTRY_LIMIT:
            raise FixInput(f"an entry of {len(entry)} bytes is too long for the log: {ENTRY_LIMIT} is the limit")
        parts += (len(entry).to_bytes(2, "big"), entry)
    return b"".join(parts)


def unpack_entries(bundle: bytes) -> list[bytes]:
    """The entries of a bundle. `EvidenceInvalid` (step `tiles`) when it ends inside an entry."""
    entries: list[bytes] = []
    at = 0
    while at < len(bundle):
        start = at + 2
        at = start + int.from_bytes(bundle[at:start], "big")
        if start > len(bundle) or at > len(bundle):
            raise EvidenceInvalid(f"an entry bundle ends inside its entry {len(entries)}", "tiles")
        entries.append(bundle[start:at])
    return entries


def _numbered(index: int, width: int) -> str:
    groups = [f"{index % 1000:03d}"]
    while index := index // 1000:
        groups.append(f"x{index % 1000:03d}")
    name = "/".join(reversed(groups))
    return name if width == TILE_WIDTH else f"{name}.p/{width}"


def tiles_between(old_size: int, new_size: int) -> Iterator[Tile]:
    """The tiles of a tree of `new_size` that one of `old_size` has not, or has narrower; lowest level first, left to right."""
    level = 0
    while new_count := new_size >> TILE_HEIGHT * level:
        old_count = old_size >> TILE_HEIGHT * level
        if old_count < new_count:
            for index in range(old_count >> TILE_HEIGHT, (new_count + TILE_WIDTH - 1) >> TILE_HEIGHT):
                yield tile_at(level, index, new_size)
        level += 1


def tile_at(level: int, index: int, size: int) -> Tile:
    """A tile as wide as a tree of `size` makes it, which must reach it."""
    return Tile(level, index, min(TILE_WIDTH, (size >> TILE_HEIGHT * level) - index * TILE_WIDTH))


def _complete_subtrees(low: int, high: int) -> Iterator[tuple[int, int]]:
    """(height, number) of the complete subtrees that make up leaves [low, high), largest first for a range of RFC 9162."""
    while low < high:
        height = (high - low).bit_length() - 1
        if low:
            height = min(height, (low & -low).bit_length() - 1)
        yield height, low >> height
        low += 1 << height


def tiles_for(ranges: Sequence[tuple[int, int]], size: int) -> list[Tile]:
    """The tiles of a tree of `size` that the roots of these leaf ranges are computed from, each once, in order."""
    return sorted(
        {
            tile_at(height // TILE_HEIGHT, number << height % TILE_HEIGHT >> TILE_HEIGHT, size)
            for low, high in ranges
            for height, number in _complete_subtrees(low, high)
        }
    )


def _roots(ranges: Sequence[tuple[int, int]], size: int, read: ReadTiles) -> list[bytes]:
    tiles = tiles_for(ranges, size)
    stored = {}
    for tile, content in zip(tiles, read(tiles), strict=True):
        if len(content) != tile.width * HASH_SIZE:
            raise EvidenceInvalid(f"{tile.path} has {len(content)} bytes, not {tile.width * HASH_SIZE}", "tiles")
        stored[tile.level, tile.index] = content
    roots = []
    for low, high in ranges:
        root = b""
        for height, number in reversed(list(_complete_subtrees(low, high))):
            first = number << height % TILE_HEIGHT
            content = stored[height // TILE_HEIGHT, first >> TILE_HEIGHT]
            at = first % TILE_WIDTH * HASH_SIZE
            subtree = root_of(split_hashes(content[at : at + (HASH_SIZE << height % TILE_HEIGHT)]))
            root = node_hash(subtree, root) if root else subtree
        roots.append(root)
    return roots


def split_hashes(content: bytes) -> list[bytes]:
    """A tile's bytes as its hashes."""
    return [content[at : at + HASH_SIZE] for at in range(0, len(content), HASH_SIZE)]


def _split_point(low: int, high: int) -> int:
    """`low` plus the largest power of two below the number of leaves, which must be two or more."""
    return low + (1 << (high - low - 1).bit_length() - 1)


def _inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    _inside(index, size)
    low, high = 0, size
    ranges = []
    while high - low > 1:
        middle = _split_point(low, high)
        if index < middle:
            ranges.append((middle, high))
            high = middle
        else:
            ranges.append((low, middle))
            low = middle
    return ranges[::-1]


def _consistency_ranges(old_size: int, new_size: int) -> list[tuple[int, int]]:
    if not 0 < old_size <= new_size:
        raise FixInput(f"no consistency proof leads from size {old_size} to size {new_size}")
    low, high = 0, new_size
    ranges = []
    while high != old_size:
        middle = _split_point(low, high)
        if old_size <= middle:
            ranges.append((middle, high))
            high = middle
        else:
            ranges.append((low, middle))
            low = middle
    if low:
        ranges.append((low, high))
    return ranges[::-1]


def root_from_tiles(size: int, read: ReadTiles) -> bytes:
    """The root of the first `size` leaves, from the tiles on its right edge."""
    return _roots([(0, size)], size, read)[0] if size else root_of([])


def inclusion_from_tiles(index: int, size: int, read: ReadTiles) -> list[bytes]:
    """`inclusion_path` in the tree of the first `size` leaves, reading a few tiles for each level of tiles."""
    return _roots(_inclusion_ranges(index, size), size, read)


def consistency_from_tiles(old_size: int, new_size: int, read: ReadTiles) -> list[bytes]:
    """`consistency_path` between two sizes. `FixInput` unless 0 < old_size <= new_size."""
    return _roots(_consistency_ranges(old_size, new_size), new_size, read)


def appended_tiles(old_size: int, leaf_hashes: Sequence[bytes], read: ReadTiles) -> list[tuple[Tile, bytes]]:
    """The tiles that appending these leaves makes or widens, as in `tiles_between`; reads only the old partial tiles."""
    edge = [tile for tile in _edge(old_size) if tile.width < TILE_WIDTH]
    partial = {tile.level: content for tile, content in zip(edge, read(edge), strict=True)}
    tiles = []
    level, fresh = 0, list(leaf_hashes)
    while fresh:
        first = old_size >> TILE_HEIGHT * level >> TILE_HEIGHT
        hashes = split_hashes(partial.get(level, b"")) + fresh
        fresh = []
        for index, at in enumerate(range(0, len(hashes), TILE_WIDTH), first):
            held = hashes[at : at + TILE_WIDTH]
            tiles.append((Tile(level, index, len(held)), b"".join(held)))
            if len(held) == TILE_WIDTH:
                fresh.append(root_of(held))
        level += 1
    return tiles


def _edge(size: int) -> Iterator[Tile]:
    level = 0
    while count := size >> TILE_HEIGHT * level:
        yield tile_at(level, (count - 1) >> TILE_HEIGHT, size)
        level += 1
