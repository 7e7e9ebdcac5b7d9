"""Recomputing a whole log from its entries, as an auditor does with a mirror or an operator with a restored store."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from ledger.core import merkle
from ledger.core.checkpoint import Checkpoint, parse_and_verify
from ledger.core.errors import EvidenceInvalid
from ledger.core.merkle import TILE_WIDTH, Tile
from ledger.log.mirror import Mirror
from ledger.log.storage import Published

_CHUNK: Final = 16 * TILE_WIDTH


def check(source: Path | Published, origin: str, public_key: bytes) -> Checkpoint:
    """The checkpoint of a mirror's folder, or of a store, after recomputing everything under it, in flat memory:

    1. the checkpoint is signed by `public_key` (32 raw bytes, Ed25519) for `origin`;
    2. every entry hashes to its leaf in the level 0 tiles, every higher tile follows from those below it;
    3. the root of all entries is the signed one.

    Raises `EvidenceInvalid` (step `checkpoint`, `tiles` or `root`) that names the first wrong or missing leaf, tile or bundle.
    It does not prove that others are shown the same log, nor anything about what the entries say.
    """
    published: Published = Mirror(source) if isinstance(source, Path) else source
    # 1
    note = published.checkpoint()
    if note is None:
        raise EvidenceInvalid("checkpoint is missing", "checkpoint")
    head = parse_and_verify(note, origin, public_key)
    # 2
    entries = iter(published.entries(0, head.size))
    edge: dict[tuple[int, int], bytes] = {}

    def computed(tiles: Sequence[Tile]) -> list[bytes]:
        return [edge[tile.level, tile.index] for tile in tiles]

    size = 0
    while leaves := [merkle.leaf_hash(entry) for entry in islice(entries, _CHUNK)]:
        grown = merkle.appended_tiles(size, leaves, computed)
        for (tile, content), stored in zip(grown, published.tiles([tile for tile, _ in grown]), strict=True):
            if content != stored:
                raise _first_difference(merkle.tile_at(tile.level, tile.index, head.size), content, stored)
        size += len(leaves)
        edge |= {(tile.level, tile.index): content for tile, content in grown}
        edge = {(level, index): content for (level, index), content in edge.items() if index == size >> 8 * (level + 1)}
    # 3
    if merkle.root_from_tiles(head.size, computed) != head.root:
        raise EvidenceInvalid(f"the root of the {head.size} entries is not the one that the checkpoint signs", "root")
    return head


def _first_difference(tile: Tile, computed: bytes, stored: bytes) -> EvidenceInvalid:
    pairs = zip(merkle.split_hashes(computed), merkle.split_hashes(stored), strict=True)
    position = next(at for at, (ours, theirs) in enumerate(pairs) if ours != theirs)
    number = tile.index * TILE_WIDTH + position
    if tile.level == 0:
        bundle = merkle.entries_path(tile.index, tile.width)
        return EvidenceInvalid(f"leaf {number} in {tile.path} is not the hash of its entry in {bundle}", "tiles")
    below = Tile(tile.level - 1, number, TILE_WIDTH).path
    return EvidenceInvalid(f"{tile.path}: hash {position} is not the root of {below}", "tiles")
