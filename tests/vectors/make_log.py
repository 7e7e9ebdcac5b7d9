"""Makes the vectors of the log: `python tests/vectors/make_log.py` writes tests/vectors/log/*.json. Deterministic.

Each file is a list of cases with `expect`: `ok`, or the step at which the evidence is refused and a `reason` in plain words.
Hashes and keys are hex; a note is the text itself.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger.core import merkle
from ledger.core.checkpoint import Checkpoint, key_hash, sign

ORIGIN = "example.org/log"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC_KEY = KEY.public_key().public_bytes_raw()
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
LEAVES = [merkle.leaf_hash(f"entry {number}".encode()) for number in range(600)]

Case = dict[str, Any]


def vectors() -> dict[str, list[Case]]:
    """The content of each file, by its name."""
    return {"inclusion.json": inclusion(), "consistency.json": consistency(), "checkpoint.json": checkpoints()}


def _flipped(node: bytes) -> bytes:
    return bytes([node[0] ^ 1]) + node[1:]


def _hex(path: list[bytes]) -> list[str]:
    return [node.hex() for node in path]


def inclusion() -> list[Case]:
    cases: list[Case] = []

    def case(
        name: str, expect: str, index: int, size: int, root: bytes, path: list[bytes], leaf: bytes, reason: str = ""
    ) -> None:
        made = {"name": name, "expect": expect, "leaf": leaf.hex(), "index": index, "size": size, "root": root.hex()}
        cases.append({**made, "path": _hex(path), **({"reason": reason} if reason else {})})

    for size, index in [(1, 0), (2, 0), (2, 1), (3, 2), (5, 4), (7, 3), (8, 5), (255, 254), (256, 0), (257, 256), (600, 511)]:
        path = merkle.inclusion_path(LEAVES[:size], index)
        case(f"leaf {index} of {size}", "ok", index, size, merkle.root_of(LEAVES[:size]), path, LEAVES[index])

    path, root, leaf = merkle.inclusion_path(LEAVES[:7], 3), merkle.root_of(LEAVES[:7]), LEAVES[3]
    case("another index", "inclusion", 2, 7, root, path, leaf, "the path leads to another root")
    case("an index outside the tree", "inclusion", 7, 7, root, path, leaf, "the index is not below the size")
    case("a tree of size 0", "inclusion", 0, 0, merkle.root_of([]), [], leaf, "the index is not below the size")
    case("another size with a longer path", "inclusion", 3, 9, root, path, leaf, "one node too few for this size")
    case("a truncated path", "inclusion", 3, 7, root, path[:-1], leaf, "one node too few")
    case("an empty path", "inclusion", 3, 7, root, [], leaf, "three nodes too few")
    case("an extra node", "inclusion", 3, 7, root, [*path, LEAVES[0]], leaf, "one node too many")
    case("an extra node at the front", "inclusion", 3, 7, root, [leaf, *path], leaf, "one node too many")
    for at in range(len(path)):
        flipped = [*path[:at], _flipped(path[at]), *path[at + 1 :]]
        case(f"a flipped bit in node {at}", "inclusion", 3, 7, root, flipped, leaf, "the path leads to another root")
    case("a flipped bit in the leaf", "inclusion", 3, 7, root, path, _flipped(leaf), "the path leads to another root")
    case("a flipped bit in the root", "inclusion", 3, 7, _flipped(root), path, leaf, "the path leads to another root")
    case("nodes in another order", "inclusion", 3, 7, root, path[::-1], leaf, "the path leads to another root")
    case("a node of 31 bytes", "inclusion", 3, 7, root, [path[0][:31], *path[1:]], leaf, "a node is not 32 bytes long")
    posing = merkle.leaf_hash(LEAVES[2] + LEAVES[3])
    case("two leaf hashes posing as an entry", "inclusion", 1, 4, root, path[1:], posing, "leaves and nodes hash differently")
    return cases


def consistency() -> list[Case]:
    cases: list[Case] = []

    def case(
        name: str, expect: str, old: int, old_root: bytes, new: int, new_root: bytes, path: list[bytes], reason: str = ""
    ) -> None:
        made = {"name": name, "expect": expect, "old_size": old, "old_root": old_root.hex(), "new_size": new}
        cases.append({**made, "new_root": new_root.hex(), "path": _hex(path), **({"reason": reason} if reason else {})})

    for old, new in [(1, 1), (1, 2), (2, 3), (3, 7), (4, 7), (6, 7), (7, 8), (8, 8), (255, 256), (256, 600), (257, 600)]:
        path = merkle.consistency_path(LEAVES[:new], old)
        roots = merkle.root_of(LEAVES[:old]), merkle.root_of(LEAVES[:new])
        case(f"from {old} to {new}", "ok", old, roots[0], new, roots[1], path)

    path, old_root, new_root = merkle.consistency_path(LEAVES[:7], 3), merkle.root_of(LEAVES[:3]), merkle.root_of(LEAVES[:7])
    case("from size 0", "consistency", 0, merkle.root_of([]), 7, new_root, [], "the empty tree begins every tree: no proof")
    case("backwards", "consistency", 7, new_root, 3, old_root, path, "the old size is above the new size")
    case("another old size", "consistency", 2, old_root, 7, new_root, path, "too many nodes for this size")
    case("another new size", "consistency", 3, old_root, 9, new_root, path, "too few nodes for this size")
    case("a truncated path", "consistency", 3, old_root, 7, new_root, path[:-1], "one node too few")
    case("an empty path", "consistency", 3, old_root, 7, new_root, [], "four nodes too few")
    case("an extra node", "consistency", 3, old_root, 7, new_root, [*path, LEAVES[0]], "one node too many")
    for at in range(len(path)):
        flipped = [*path[:at], _flipped(path[at]), *path[at + 1 :]]
        case(f"a flipped bit in node {at}", "consistency", 3, old_root, 7, new_root, flipped, "it leads to other roots")
    case("another old root", "consistency", 3, _flipped(old_root), 7, new_root, path, "it leads to another old root")
    case("another new root", "consistency", 3, old_root, 7, _flipped(new_root), path, "it leads to another new root")
    case("two roots for one size", "consistency", 7, _flipped(new_root), 7, new_root, [], "the log has two histories")
    case("a path for one size", "consistency", 7, new_root, 7, new_root, [LEAVES[0]], "one node too many")
    rewritten = merkle.root_of([LEAVES[9], *LEAVES[1:7]])
    case("a rewritten leaf", "consistency", 3, old_root, 7, rewritten, path, "it leads to another new root")
    return cases


def checkpoints() -> list[Case]:
    cases: list[Case] = []
    good = Checkpoint(ORIGIN, 7, merkle.root_of(LEAVES[:7]))
    note = sign(good, PUBLIC_KEY, KEY.sign)

    def case(name: str, expect: str, text: str, reason: str = "", origin: str = ORIGIN, size: int = 7) -> None:
        made: Case = {"name": name, "expect": expect, "origin": origin, "public_key": PUBLIC_KEY.hex(), "note": text}
        found = {"size": size, "root": merkle.root_of(LEAVES[:size]).hex()} if expect == "ok" else {"reason": reason}
        cases.append({**made, **found})

    def signed(body: str, key: Ed25519PrivateKey = KEY, name: str = ORIGIN) -> str:
        signature = key_hash(name, key.public_key().public_bytes_raw()) + key.sign(body.encode())
        return f"{body}\n— {name} {base64.b64encode(signature).decode()}\n"

    bad = "checkpoint"
    root = base64.b64encode(good.root).decode()
    witness = f"— witness.example {base64.b64encode(bytes(4 + 72)).decode()}\n"
    case("as the log makes it", "ok", note)
    case("an empty tree", "ok", sign(Checkpoint(ORIGIN, 0, merkle.root_of([])), PUBLIC_KEY, KEY.sign), size=0)
    case("a witness's signature behind", "ok", note + witness)
    case("a witness's signature in front", "ok", note.replace("\n\n", f"\n\n{witness}"))
    case("an extension line", "ok", signed(good.body + "extension\n"))
    case("no signature", bad, good.body, "no blank line")
    case("only a witness's signature", bad, f"{good.body}\n{witness}", "no signature by the log's key")
    case("another key", bad, signed(good.body, OTHER), "no signature by the log's key")
    case("another log's name", bad, note, "no signature by the log's key", origin="example.org/other")
    case(
        "another log's checkpoint by the same key",
        bad,
        signed(good.body.replace(ORIGIN, "example.org/other")),
        "another origin",
    )
    case("another size", bad, note.replace("\n7\n", "\n8\n"), "the signature does not verify")
    case("another root", bad, note.replace(root, base64.b64encode(bytes(32)).decode()), "the signature does not verify")
    forged = base64.b64encode(key_hash(ORIGIN, PUBLIC_KEY) + bytes(64)).decode()
    case("a second signature by the key that fails", bad, f"{note}— {ORIGIN} {forged}\n", "a signature does not verify")
    case("a malformed signature line", bad, f"{note}— witness.example\n", "a signature line is malformed")
    case("a hyphen for the dash", bad, note.replace("—", "-"), "a signature line is malformed")
    case("base64 that is not canonical", bad, f"{note}— witness.example AAAAAAB=\n", "a signature line is malformed")
    case("no last newline", bad, note[:-1], "the last line has no newline")
    case("a carriage return", bad, note.replace("\n", "\r\n"), "a control character")
    case("a leading zero", bad, signed(good.body.replace("\n7\n", "\n07\n")), "the size is not plain decimal")
    case("a negative size", bad, signed(good.body.replace("\n7\n", "\n-7\n")), "the size is not plain decimal")
    case("a size of 2**64", bad, signed(good.body.replace("\n7\n", f"\n{1 << 64}\n")), "the size is too large")
    case("a root of 31 bytes", bad, signed(good.body.replace(root, base64.b64encode(bytes(31)).decode())), "the root's length")
    case("a root without padding", bad, signed(good.body.replace(root, root.rstrip("="))), "the root is not canonical base64")
    case("two lines", bad, signed(f"{ORIGIN}\n7\n"), "no root")
    case("an empty extension line", bad, signed(good.body + "\nextension\n"), "an empty line in the text")
    return cases


if __name__ == "__main__":
    for name, content in vectors().items():
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        (Path(__file__).parent / "log" / name).write_text(text, encoding="utf-8")
