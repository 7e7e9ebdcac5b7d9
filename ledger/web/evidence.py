"""`/v1/evidence`: encrypted bundles that sites deposit, found by whoever holds the image. FORMAT.md §12."""

from __future__ import annotations

import base64
from typing import Annotated, Final

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool

from ledger.web.asking import Served, Site, Stated, within_limits
from ledger.web.limits import body_of
from ledger.web.problems import Refusal, described

router = APIRouter(prefix="/v1/evidence", tags=["evidence"])
_TOKEN: Final = r"^[0-9a-f]{64}$"  # noqa: S105 - a pattern
_LEAST: Final = 12 + 16
"""Bytes of a nonce and a tag."""
_BODY = {"requestBody": {"required": True, "content": {"application/octet-stream": {}}}}

Token = Annotated[str, Path(pattern=_TOKEN, examples=[bytes(range(32)).hex()])]


class Deposits(BaseModel):
    """What was deposited under a token, a site each, the newest first: nonce (12 bytes) and AES-256-GCM, in base64."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"evidence": ["b2s..."]}]})

    evidence: list[str]


@router.put(
    "/{token}",
    status_code=204,
    response_class=Response,
    openapi_extra=_BODY,
    responses=described(401, 408, 413, 422, 429, 503) | {201: {"description": "the site's first deposit under this token"}},
)
async def deposit(token: Token, request: Request, site: Site, state: Stated) -> Response:
    """Deposit an encrypted bundle under a token that the image alone gives, in place of the site's older one."""
    body = await body_of(request, state.limits.deposit, state.limits.body_s)
    if len(body) <= _LEAST:
        raise Refusal(422, "input", "a deposit is a nonce, a ciphertext and a tag")
    is_new = await run_in_threadpool(state.node.deposit, site, bytes.fromhex(token), body)
    return Response(status_code=201 if is_new else 204)


@router.delete("/{token}", status_code=204, response_class=Response, responses=described(401, 404, 422, 429, 503))
async def withdraw(token: Token, site: Site, state: Stated) -> Response:
    """Have the node forget the site's deposit."""
    if not await run_in_threadpool(state.node.withdraw, site, bytes.fromhex(token)):
        raise Refusal(404, "no-such-evidence", "this site has deposited nothing under this token")
    return Response(status_code=204)


@router.get("/{token}", dependencies=within_limits, responses=described(404, 422, 429, 503))
def evidence(token: Token, node: Served) -> Deposits:
    """What was deposited under a token."""
    found = node.deposited(bytes.fromhex(token))
    if not found:
        raise Refusal(404, "no-such-evidence", "nothing was deposited under this token")
    return Deposits(evidence=[base64.b64encode(one).decode() for one in found])
