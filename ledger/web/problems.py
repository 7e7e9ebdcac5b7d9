"""Errors as RFC 9457 problem details: the one place where they become HTTP."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from ledger.core.errors import EvidenceInvalid, FixInput, NeedPermission, ScanSealError, TryLater
from ledger.log.submission import KeyForked, OutOfOrder

LOG = logging.getLogger("ledger.web")
MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 2
NAME: Final = "ProblemDetails"
_SCHEMA: Final = "#/components/schemas/"


class Busy(TryLater):
    """The node cannot take more now; ask again after `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: int = RETRY_AFTER_S) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Refusal(Exception):
    """A request that is answered with a problem. `word` is the end of its type: `urn:scanseal:problem:<word>`."""

    def __init__(
        self, status: int, word: str, detail: str, headers: Mapping[str, str] | None = None, **members: str | int
    ) -> None:
        super().__init__(detail)
        self.status, self.word, self.detail = status, word, detail
        self.headers, self.members = dict(headers or {}), members


class ProblemDetails(BaseModel):
    """RFC 9457. `key`, `counter` and `next_counter` where a record was refused for its place in its key's chain."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    key: str | None = None
    counter: int | None = None
    next_counter: int | None = None


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: what these statuses answer."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": _SCHEMA + NAME}, "example": _example(status)}},
        }
        for status in statuses
    }


def _example(status: int) -> dict[str, Any]:
    if status == HTTPStatus.CONFLICT:
        refusal = refusal_of(OutOfOrder(bytes(range(32)), 9, 7))
    else:
        refusal = Refusal(status, "example", "what is wrong, and what to do about it")
    return _members(refusal)


def refusal_of(error: ScanSealError) -> Refusal:
    """An error as a problem: fix the input 422, in conflict with what is known 409, not allowed 403, later 503."""
    if isinstance(error, KeyForked):
        return Refusal(409, "key-forked", str(error), key="0x" + error.key.hex(), counter=error.counter)
    if isinstance(error, OutOfOrder):
        key, counter, following = "0x" + error.key.hex(), error.counter, error.next_counter
        return Refusal(409, "out-of-order", str(error), key=key, counter=counter, next_counter=following)
    if isinstance(error, EvidenceInvalid):
        return Refusal(422, error.step.replace(" ", "-"), str(error))
    if isinstance(error, FixInput):
        return Refusal(422, "input", str(error))
    if isinstance(error, NeedPermission):
        return Refusal(403, "not-allowed", str(error))
    if isinstance(error, TryLater):
        after = error.retry_after_s if isinstance(error, Busy) else RETRY_AFTER_S
        return Refusal(503, "busy" if isinstance(error, Busy) else "later", str(error), {"Retry-After": str(after)})
    return Refusal(500, "stopped", "the node has stopped taking records: its operator has to look")


def response(refusal: Refusal) -> JSONResponse:
    return JSONResponse(_members(refusal), refusal.status, refusal.headers, MEDIA_TYPE)


def _members(refusal: Refusal) -> dict[str, Any]:
    return {
        "type": f"urn:scanseal:problem:{refusal.word}",
        "title": HTTPStatus(refusal.status).phrase,
        "status": refusal.status,
        "detail": refusal.detail,
    } | refusal.members


def install(app: FastAPI) -> None:
    """Has the app answer every error with a problem, and describe them; of one that nobody expected it says nothing more."""
    describe = app.openapi

    def described_too() -> dict[str, Any]:
        described = describe()
        described["components"]["schemas"][NAME] = ProblemDetails.model_json_schema(ref_template=_SCHEMA + "{model}")
        return described

    app.openapi = described_too  # type: ignore[method-assign]

    async def refused(request: Request, error: Exception) -> JSONResponse:
        refusal = _refusal(error)
        if refusal.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            shown = str(error) if isinstance(error, ScanSealError) else type(error).__name__
            LOG.error("an answer failed", extra={"error": shown})
        request.state.refused = refusal.word
        return response(refusal)

    for kind in (Refusal, ScanSealError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, refused)


def _refusal(error: Exception) -> Refusal:
    if isinstance(error, Refusal):
        return error
    if isinstance(error, ScanSealError):
        return refusal_of(error)
    if isinstance(error, HTTPException):
        word = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
        detail = {404: "there is nothing under this path", 405: "this path does not take this method"}
        return Refusal(error.status_code, word, detail.get(error.status_code, word), error.headers)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return Refusal(422, "input", f"{place}: {first['msg']}")
    return Refusal(500, "internal", "an error of the node: its log says where")
