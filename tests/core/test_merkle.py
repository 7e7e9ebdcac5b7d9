"""Trees and proofs against the recursive definitions of RFC 9162, its verification algorithms, and published roots."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.core import merkle
from ledger.core.errors import EvidenceInvalid, FixInput
from ledger.core.merkle import Tile

# The tree of the Certificate Transparency reference implementation: eight inputs, the root after each of them.
CT_INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]

LEAVES = [merkle.leaf_hash(number.to_bytes(2, "big")) for number in range(1400)]


# ---- the definitions of RFC 9162, word for word and slow ------------------------------------------------------------


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def split(count: int) -> int:
    power = 1
    while power * 2 < count:
        power *= 2
    return power


def mth(leaves: Sequence[bytes]) -> bytes:
    """§2.1.1"""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return node(mth(leaves[:k]), mth(leaves[k:]))


def path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """§2.1.3.1"""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: Sequence[bytes], complete: bool) -> list[bytes]:
    """§2.1.4.1"""
    if m == len(leaves):
        return [] if complete else [mth(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], complete), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


def includes(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """§2.1.3.2"""
    if index >= size:
        return False
    fn, sn, r = index, size - 1, leaf
    for p in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            r = node(p, r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node(r, p)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and r == root


def extends(first: int, first_hash: bytes, second: int, second_hash: bytes, proof: Sequence[bytes]) -> bool:
    """§2.1.4.2"""
    if first == second:
        return not proof and first_hash == second_hash
    if not proof:
        return False
    proof = [first_hash, *proof] if first & (first - 1) == 0 else list(proof)
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = proof[0]
    for c in proof[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = node(c, fr), node(c, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node(sr, c)
        fn, sn = fn >> 1, sn >> 1
    return fr == first_hash and sr == second_hash and sn == 0


def accepts_inclusion(*arguments: object) -> bool:
    try:
        merkle.verify_inclusion(*arguments)  # type: ignore[arg-type]
    except EvidenceInvalid as error:
        return error.step != "inclusion"
    return True


def accepts_consistency(*arguments: object) -> bool:
    try:
        merkle.verify_consistency(*arguments)  # type: ignore[arg-type]
    except EvidenceInvalid as error:
        return error.step != "consistency"
    return True


# ---- roots ----------------------------------------------------------------------------------------------------------


def test_roots_are_those_of_the_certificate_transparency_reference_tree() -> None:
    leaves = [merkle.leaf_hash(bytes.fromhex(text)) for text in CT_INPUTS]
    assert [merkle.root_of(leaves[:size]).hex() for size in range(1, 9)] == CT_ROOTS


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert merkle.root_of([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert merkle.root_of([], "blake3").hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


@given(st.integers(0, 1400))
@settings(max_examples=60, deadline=None)
def test_roots_follow_the_recursive_definition(size: int) -> None:
    assert merkle.root_of(LEAVES[:size]) == mth(LEAVES[:size])


def test_leaves_hash_any_buffer_and_both_hashes() -> None:
    assert merkle.leaf_hash(memoryview(b"ab")) == hashlib.sha256(b"\x00ab").digest()
    assert merkle.leaf_hash(b"ab", "blake3") != merkle.leaf_hash(b"ab")
    leaves = [merkle.leaf_hash(bytes([number]), "blake3") for number in range(5)]
    proof = merkle.inclusion_path(leaves, 3, "blake3")
    merkle.verify_inclusion(leaves[3], 3, 5, proof, merkle.root_of(leaves, "blake3"), "blake3")
    with pytest.raises(FixInput, match="unknown tree hash 'md5'"):
        merkle.leaf_hash(b"", "md5")


# ---- inclusion ------------------------------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_inclusion_paths_are_those_of_the_rfc_and_verify(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 300))
    index = data.draw(st.integers(0, size - 1))
    proof = merkle.inclusion_path(LEAVES[:size], index)
    root = mth(LEAVES[:size])
    assert proof == path(index, LEAVES[:size])
    assert includes(LEAVES[index], index, size, proof, root)
    merkle.verify_inclusion(LEAVES[index], index, size, proof, root)
    assert merkle.root_from_inclusion(LEAVES[index], index, size, proof) == root


def test_every_leaf_of_every_small_tree_is_proved_at_its_own_index_only() -> None:
    for size in range(1, 18):
        root = mth(LEAVES[:size])
        for index in range(size):
            proof = merkle.inclusion_path(LEAVES[:size], index)
            for claimed in range(-1, size + 1):
                assert accepts_inclusion(LEAVES[index], claimed, size, proof, root) == (claimed == index)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_inclusion_proof_is_judged_as_by_the_algorithm_of_the_rfc(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 80))
    index = data.draw(st.integers(0, size - 1))
    proof = path(index, LEAVES[:size])
    damage = data.draw(st.sampled_from(["index", "size", "drop", "add", "swap", "flip", "leaf", "nothing"]))
    claimed, claimed_size, leaf = index, size, LEAVES[index]
    match damage:
        case "index":
            claimed = data.draw(st.integers(0, size + 3))
        case "size":
            claimed_size = data.draw(st.integers(0, 90))
        case "drop" if proof:
            proof.pop(data.draw(st.integers(0, len(proof) - 1)))
        case "add":
            proof.insert(data.draw(st.integers(0, len(proof))), LEAVES[0])
        case "swap" if len(proof) > 1:
            proof[0], proof[1] = proof[1], proof[0]
        case "flip" if proof:
            at = data.draw(st.integers(0, len(proof) - 1))
            proof[at] = bytes([proof[at][0] ^ 1]) + proof[at][1:]
        case "leaf":
            leaf = LEAVES[index + 1]
    root = mth(LEAVES[:size])
    judged = includes(leaf, claimed, claimed_size, proof, root)
    assert accepts_inclusion(leaf, claimed, claimed_size, proof, root) == judged
    # Another size may lead to the same root by the same path (RFC 9162 §2.1.3 binds size only through the checkpoint).
    assert not judged or damage in ("index", "size", "drop", "swap", "flip", "nothing")


def test_messages_name_the_leaf_and_what_is_wrong() -> None:
    proof = merkle.inclusion_path(LEAVES[:5], 2)
    root = mth(LEAVES[:5])
    with pytest.raises(EvidenceInvalid, match="leaf 7 is outside a tree of size 5"):
        merkle.verify_inclusion(LEAVES[2], 7, 5, proof, root)
    with pytest.raises(EvidenceInvalid, match="leaf 0 is outside a tree of size 0"):
        merkle.verify_inclusion(LEAVES[2], 0, 0, [], root)
    with pytest.raises(EvidenceInvalid, match="leaf 2 in a tree of size 5 has 3 nodes, not 2"):
        merkle.verify_inclusion(LEAVES[2], 2, 5, proof[:2], root)
    with pytest.raises(EvidenceInvalid, match="leaf 2 in a tree of size 5 has 3 nodes, not 4"):
        merkle.root_from_inclusion(LEAVES[2], 2, 5, [*proof, root])
    with pytest.raises(EvidenceInvalid, match="node 1 of the proof has 31 bytes"):
        merkle.verify_inclusion(LEAVES[2], 2, 5, [proof[0], proof[1][:31], proof[2]], root)
    with pytest.raises(EvidenceInvalid, match="leaf has 3 bytes"):
        merkle.verify_inclusion(b"abc", 2, 5, proof, root)
    with pytest.raises(EvidenceInvalid, match="does not lead to the root of size 5"):
        merkle.verify_inclusion(LEAVES[3], 2, 5, proof, root)
    with pytest.raises(FixInput, match="leaf 5 is outside a tree of size 5"):
        merkle.inclusion_path(LEAVES[:5], 5)


# ---- consistency ----------------------------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_consistency_paths_are_those_of_the_rfc_and_verify(data: st.DataObject) -> None:
    new = data.draw(st.integers(1, 300))
    old = data.draw(st.integers(1, new))
    proof = merkle.consistency_path(LEAVES[:new], old)
    assert proof == subproof(old, LEAVES[:new], True)
    old_root, new_root = mth(LEAVES[:old]), mth(LEAVES[:new])
    assert extends(old, old_root, new, new_root, proof)
    merkle.verify_consistency(old, old_root, new, new_root, proof)


def test_a_log_that_rewrote_a_leaf_cannot_be_shown_consistent() -> None:
    for new in range(2, 20):
        for old in range(1, new):
            proof = merkle.consistency_path(LEAVES[:new], old)
            forged = [LEAVES[999], *LEAVES[1:old]]
            assert not accepts_consistency(old, mth(forged), new, mth(LEAVES[:new]), proof)
            assert not accepts_consistency(old, mth(LEAVES[:old]), new, mth([*forged, *LEAVES[old:new]]), proof)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_consistency_proof_is_judged_as_by_the_algorithm_of_the_rfc(data: st.DataObject) -> None:
    new = data.draw(st.integers(1, 80))
    old = data.draw(st.integers(1, new))
    proof = subproof(old, LEAVES[:new], True)
    damage = data.draw(st.sampled_from(["old", "new", "drop", "add", "flip", "nothing"]))
    old_size, new_size = old, new
    match damage:
        case "old":
            old_size = data.draw(st.integers(1, new))
        case "new":
            new_size = data.draw(st.integers(old, 90))
        case "drop" if proof:
            proof.pop(data.draw(st.integers(0, len(proof) - 1)))
        case "add":
            proof.insert(data.draw(st.integers(0, len(proof))), LEAVES[0])
        case "flip" if proof:
            at = data.draw(st.integers(0, len(proof) - 1))
            proof[at] = bytes([proof[at][0] ^ 1]) + proof[at][1:]
    roots = mth(LEAVES[:old]), mth(LEAVES[:new])
    judged = extends(old_size, roots[0], new_size, roots[1], proof)
    assert accepts_consistency(old_size, roots[0], new_size, roots[1], proof) == judged


def test_consistency_messages_name_the_sizes() -> None:
    roots = [mth(LEAVES[:size]) for size in range(9)]
    proof = merkle.consistency_path(LEAVES[:8], 3)
    for old, new in [(0, 8), (9, 8), (-1, 8)]:
        with pytest.raises(EvidenceInvalid, match=f"from size {old} to size {new}"):
            merkle.verify_consistency(old, roots[0], new, roots[8], [])
        with pytest.raises(FixInput, match=f"from size {old} to size {new}"):
            merkle.consistency_path(LEAVES[:new], old)
    with pytest.raises(EvidenceInvalid, match="from size 3 to 8 has 4 nodes, not 5"):
        merkle.verify_consistency(3, roots[3], 8, roots[8], [*proof, proof[0]])
    with pytest.raises(EvidenceInvalid, match="two different roots for size 8"):
        merkle.verify_consistency(8, roots[8], 8, roots[7], [])
    with pytest.raises(EvidenceInvalid, match="old root of size 3"):
        merkle.verify_consistency(3, roots[4], 8, roots[8], proof)
    with pytest.raises(EvidenceInvalid, match="new root of size 8"):
        merkle.verify_consistency(3, roots[3], 8, roots[7], proof)


# ---- tiles ----------------------------------------------------------------------------------------------------------


def stored_tiles(leaves: Sequence[bytes]) -> dict[tuple[int, int], bytes]:
    """All tiles of a tree by their definition in tlog-tiles: MTH(D[(n*256 + i) * 256**l : (n*256 + i + 1) * 256**l])."""
    tiles: dict[tuple[int, int], bytes] = {}
    level = 0
    while count := len(leaves) // 256**level:
        span = 256**level
        hashes = [mth(leaves[number * span : (number + 1) * span]) for number in range(count)]
        for first in range(0, count, 256):
            tiles[level, first // 256] = b"".join(hashes[first : first + 256])
        level += 1
    return tiles


FULL = stored_tiles(LEAVES)


def read(tiles: Sequence[Tile]) -> list[bytes]:
    return [FULL[tile.level, tile.index][: 32 * tile.width] for tile in tiles]


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_proofs_from_tiles_are_the_proofs_of_the_rfc(data: st.DataObject) -> None:
    new = data.draw(st.integers(1, 1400))
    old = data.draw(st.integers(1, new))
    index = data.draw(st.integers(0, new - 1))
    assert merkle.root_from_tiles(new, read) == mth(LEAVES[:new])
    assert merkle.inclusion_from_tiles(index, new, read) == path(index, LEAVES[:new])
    assert merkle.consistency_from_tiles(old, new, read) == subproof(old, LEAVES[:new], True)


@given(st.lists(st.integers(0, 520), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_appending_in_any_batches_makes_the_tiles_of_the_definition(batches: list[int]) -> None:
    kept: dict[tuple[int, int], bytes] = {}
    asked: list[Tile] = []

    def edge(tiles: Sequence[Tile]) -> list[bytes]:
        asked.extend(tiles)
        return [kept[tile.level, tile.index] for tile in tiles]

    size = 0
    for count in batches:
        batch = LEAVES[size : size + count]
        made = merkle.appended_tiles(size, batch, edge)
        assert [tile for tile, _ in made] == list(merkle.tiles_between(size, size + len(batch)))
        kept.update({(tile.level, tile.index): content for tile, content in made})
        size += len(batch)
    assert kept == stored_tiles(LEAVES[:size])
    assert all(tile.width < 256 for tile in asked)


def test_tiles_of_a_tree_of_70000_are_those_that_the_specification_counts() -> None:
    tiles = list(merkle.tiles_between(0, 70_000))
    assert [tile for tile in tiles if tile.width < 256] == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert len(tiles) == 273 + 1 + 1 + 1 + 1
    assert list(merkle.tiles_between(0, 256)) == [Tile(0, 0, 256), Tile(1, 0, 1)]
    assert list(merkle.tiles_between(0, 0)) == []


def test_tile_paths_are_those_of_the_specification() -> None:
    assert Tile(0, 1234067, 256).path == "tile/0/x001/x234/067"
    assert Tile(1, 273, 112).path == "tile/1/273.p/112"
    assert merkle.entries_path(0, 256) == "tile/entries/000"
    assert merkle.entries_path(1000, 255) == "tile/entries/x001/000.p/255"


def test_a_proof_in_a_tree_of_a_million_leaves_needs_a_handful_of_tiles() -> None:
    for index in (0, 1, 255, 256, 65_535, 65_536, 524_288, 983_040, 999_423, 999_424, 999_999):
        asked: list[Tile] = []

        def blank(tiles: Sequence[Tile], asked: list[Tile] = asked) -> list[bytes]:
            asked.extend(tiles)
            return [bytes(32 * tile.width) for tile in tiles]

        assert len(merkle.inclusion_from_tiles(index, 1_000_000, blank)) <= 20
        assert len(asked) == len(set(asked)) <= 5


def test_a_tile_of_the_wrong_length_is_named() -> None:
    with pytest.raises(EvidenceInvalid, match=r"tile/0/000\.p/5 has 96 bytes, not 160"):
        merkle.root_from_tiles(5, lambda tiles: [bytes(96) for _ in tiles])
