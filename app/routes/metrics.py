"""Metrics: the gateway's figures and the queue's, as Prometheus text. Each worker has its own exporter."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from app.metrics import GATEWAY, CensusCollector
from app.services import Shared
from contract.announcements import census
from contract.errors import StoreUnavailable

router = APIRouter(tags=["metrics"])


@router.get("/metrics", summary="Read the figures", response_class=PlainTextResponse)
async def get_metrics(services: Shared) -> PlainTextResponse:
    """Figures for Prometheus."""
    queue = CollectorRegistry()
    try:
        figures = await services.store.run(census())
        queue.register(CensusCollector(figures, await services.heard()))
    except StoreUnavailable:
        queue.register(CensusCollector(None, ()))
    return PlainTextResponse(generate_latest(GATEWAY) + generate_latest(queue), media_type=CONTENT_TYPE_LATEST)
