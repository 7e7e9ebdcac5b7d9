"""`/v1/records`: sites hand in signed records, and ask how far they are."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError
from starlette.concurrency import run_in_threadpool

from ledger.web.asking import Served, Site, State, Stated, within_limits
from ledger.web.limits import body_of
from ledger.web.node import Standing
from ledger.web.problems import Refusal, described

router = APIRouter(prefix="/v1/records", tags=["records"])
CERTIFICATES: Final = 64
"""Certificates in one request."""
RECORD_ID: Final = r"^0x[0-9a-f]{64}$"
_EXAMPLE_ID: Final = "0x" + bytes(range(32)).hex()


def _bytes(text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError("base64 belongs here")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("not base64") from error


Base64 = Annotated[
    bytes,
    BeforeValidator(_bytes, json_schema_input_type=str),
    PlainSerializer(lambda data: base64.b64encode(data).decode(), str),
]


class Submission(BaseModel):
    """Log entries (FORMAT.md §3), those of one key in the order of their counters, and the certificates (X.509, DER) of keys
    that the node does not know yet. Base64 with padding."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [{"records": ["qrY..."], "certificates": ["MIIB..."]}]}
    )

    records: Annotated[list[Base64], Field(min_length=1, max_length=1024)]
    certificates: Annotated[list[Base64], Field(max_length=CERTIFICATES)] = []


class Place(BaseModel):
    """How far a record is. `queued`: taken, and on disk; `sequenced`: at `index` of the log, for good, and provable;
    `included`, `safe`, `final`: an anchor with it is on chain, as far as the node knows."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"record_id": _EXAMPLE_ID, "state": "sequenced", "index": 4711}]})

    record_id: str
    state: Literal["queued", "sequenced", "included", "safe", "final"]
    index: int | None

    @classmethod
    def of(cls, standing: Standing) -> Place:
        return cls(record_id="0x" + standing.record_id.hex(), state=standing.state, index=standing.index)


class Places(BaseModel):
    """In the order of the submission's records."""

    records: list[Place]


_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": Submission.model_json_schema(ref_template="#/components/schemas/{model}")}},
    }
}


@router.post(
    "",
    response_model=Places,
    responses=described(401, 403, 408, 409, 413, 422, 429, 503)
    | {202: {"model": Places, "description": "taken, not all of it in the log yet: ask again"}},
    openapi_extra=_BODY,
)
async def submit(request: Request, site: Site, state: Stated) -> Response:
    """Hand in signed records: all are taken, or none. What was taken is durable when this answers, and in the log within a
    second. Handing in again changes nothing, and answers how far each record is."""
    body = await body_of(request, state.limits.body, state.limits.body_s)
    places, status = await run_in_threadpool(_submitted, state, site, body)
    return Response(places.model_dump_json(), status, media_type="application/json")


def _submitted(state: State, site: str, body: bytes) -> tuple[Places, int]:
    try:
        submission = Submission.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the body"
        raise Refusal(422, "input", f"{place}: {first['msg']}") from None
    if len(submission.records) > state.limits.records:
        raise Refusal(413, "too-large", f"more than {state.limits.records} records: send them in parts")
    state.records.take(f"site {site}", len(submission.records))
    found = state.node.submit(site, submission.records, submission.certificates)
    return Places(records=[Place.of(one) for one in found]), 202 if any(one.index is None for one in found) else 200


@router.get("/{record_id}", dependencies=within_limits, responses=described(404, 422, 429, 503))
def record(record_id: Annotated[str, Path(pattern=RECORD_ID, examples=[_EXAMPLE_ID])], node: Served) -> Place:
    """How far a record is."""
    found = node.record(bytes.fromhex(record_id[2:]))
    if found is None:
        raise Refusal(404, "no-such-record", "this log has no such record, and none waits for it")
    return Place.of(found)
