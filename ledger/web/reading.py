"""The log for everybody: checkpoint, tiles and entry bundles under the paths of C2SP tlog-tiles, anchors with their proofs, and
block headers. Nothing here needs to be believed: whoever reads checks it against a trust file."""

from __future__ import annotations

import base64
import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict

from ledger.core.evidence import State
from ledger.core.merkle import TILE_WIDTH, Tile, entries_path
from ledger.log.anchoring import AnchorRow
from ledger.web.asking import Served, within_limits
from ledger.web.problems import Refusal, described

router = APIRouter(prefix="/v1", tags=["log"], dependencies=within_limits)
ANCHORS: Final = 32
"""Anchors in one answer."""
_NUMBER: Final = re.compile(r"(?:x[0-9]{3}/){0,6}[0-9]{3}(?:\.p/[1-9][0-9]{0,2})?")
_BINARY: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/octet-stream": {}}, "description": "as in a static mirror"}
}
_FOR_GOOD: Final = "public, max-age=31536000, immutable"


class BeaconShown(BaseModel):
    number: int
    hash: str


class AnchorShown(BaseModel):
    """A final anchor: the signed checkpoint, what the AnchorLog stored with it, and `proof`, the state proof (FORMAT.md §7
    `states`) of it and of the keys that signed the records `old_size` to `new_size` - 1."""

    new_size: int
    old_size: int
    checkpoint: str
    beacons: list[BeaconShown]
    block_number: int
    block_hash: str
    block_time: int
    gas_used: int | None
    proof: State


class Anchors(BaseModel):
    """By size. `more` where there are others: ask again with `after` the last one's `new_size`."""

    anchors: list[AnchorShown]
    more: bool


class HeaderShown(BaseModel):
    """A block header, RLP in base64: its hash is keccak256 of it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"header": "+QIM..."}]})

    header: str


@router.get(
    "/checkpoint",
    response_class=Response,
    responses=described(429, 503)
    | {200: {"content": {"text/plain": {}}, "description": "a signed note (C2SP tlog-checkpoint)"}},
)
def checkpoint(node: Served) -> Response:
    """The log's newest signed checkpoint."""
    return Response(node.checkpoint(), media_type="text/plain; charset=utf-8", headers={"Cache-Control": "no-cache"})


@router.get("/tile/entries/{number:path}", response_class=Response, responses=_BINARY | described(404, 422, 429, 503))
def entries(number: Annotated[str, Path(examples=["000", "x001/234.p/17"])], node: Served) -> Response:
    """An entry bundle: each entry with its length (big endian u16) before it."""
    index, width = _place(number)
    content = node.entries(index, width) if entries_path(index, width) == f"tile/entries/{number}" else None
    return _content(content, width)


@router.get("/tile/{level}/{number:path}", response_class=Response, responses=_BINARY | described(404, 422, 429, 503))
def tile(
    level: Annotated[int, Path(ge=0, le=7)], number: Annotated[str, Path(examples=["000", "x001/234.p/17"])], node: Served
) -> Response:
    """A tile: the hashes of up to 256 complete subtrees."""
    asked = Tile(level, *_place(number))
    content = node.tile(asked) if asked.path == f"tile/{level}/{number}" else None
    return _content(content, asked.width)


def _place(number: str) -> tuple[int, int]:
    if not _NUMBER.fullmatch(number):
        raise _no_tile()
    digits, _, width = number.partition(".p/")
    index = int(digits.replace("x", "").replace("/", ""))
    if width and int(width) >= TILE_WIDTH:
        raise _no_tile()
    return index, int(width) if width else TILE_WIDTH


def _content(content: bytes | None, width: int) -> Response:
    if content is None:
        raise _no_tile()
    kept = _FOR_GOOD if width == TILE_WIDTH else "public, max-age=86400"
    return Response(content, media_type="application/octet-stream", headers={"Cache-Control": kept})


def _no_tile() -> Refusal:
    return Refusal(404, "no-such-tile", "the log has no such tile (C2SP tlog-tiles)")


@router.get("/anchors", responses=described(422, 429, 503))
def anchors(node: Served, after: Annotated[int, Query(ge=0, lt=1 << 62, description="a log size")] = 0) -> Anchors:
    """The log's final anchors of sizes above `after`, with their state proofs."""
    rows = node.anchors(after, ANCHORS + 1)
    return Anchors(anchors=[shown for row in rows[:ANCHORS] if (shown := _shown(row)) is not None], more=len(rows) > ANCHORS)


def _shown(row: AnchorRow) -> AnchorShown | None:
    if row.proof is None or row.block_number is None or row.block_hash is None or row.block_time is None:
        return None
    return AnchorShown(
        new_size=row.new_size,
        old_size=row.old_size,
        checkpoint=row.checkpoint,
        beacons=[BeaconShown(number=one.number, hash="0x" + one.hash.hex()) for one in row.beacons],
        block_number=row.block_number,
        block_hash="0x" + row.block_hash.hex(),
        block_time=row.block_time,
        gas_used=row.gas_used,
        proof=row.proof,
    )


@router.get("/headers/newest", responses=described(429, 503))
def newest_header(node: Served) -> HeaderShown:
    """The header of a recent block, which a record may name as its beacon."""
    return _header(node.header(None))


@router.get("/headers/{block_hash}", responses=described(404, 422, 429, 503))
def header(block_hash: Annotated[str, Path(pattern=r"^0x[0-9a-f]{64}$")], node: Served) -> HeaderShown:
    """A block header that the node keeps."""
    return _header(node.header(bytes.fromhex(block_hash[2:])))


def _header(rlp: bytes | None) -> HeaderShown:
    if rlp is None:
        raise Refusal(404, "no-such-header", "the node keeps no header with this hash")
    return HeaderShown(header=base64.b64encode(rlp).decode())
