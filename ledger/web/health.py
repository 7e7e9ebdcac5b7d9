"""`/healthz` and `/metrics`: how the node is, for monitors. Counts and states; nothing of a record, and of no site."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ledger.web.asking import Metered, Served

router = APIRouter(tags=["operations"])


@router.get("/healthz", responses={503: {"description": "somebody is needed"}})
def healthz(node: Served) -> JSONResponse:
    """Whether the node takes records and its log is published. 503 where somebody is needed."""
    health = node.health()
    shown: dict[str, Any] = asdict(health)
    return JSONResponse({"well": health.is_well} | shown.pop("more") | shown, 200 if health.is_well else 503)


@router.get("/metrics", response_class=Response)
def metrics(meter: Metered) -> Response:
    """For Prometheus."""
    return Response(generate_latest(meter.registry), media_type=CONTENT_TYPE_LATEST)
