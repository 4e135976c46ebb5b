"""Health: whether the process lives, and whether it can make pictures now."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel

from app.services import Shared
from contract.errors import StoreFull, StoreUnavailable
from contract.transitions import probe

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The process answers."""

    status: str = "ok"


class Readiness(BaseModel):
    """Whether pictures can be made now, and the reason if not."""

    ready: bool
    broker: bool
    workers: int
    reason: str | None = None


@router.get("/healthz", summary="Whether the process lives")
async def get_health() -> Health:
    """Whether the process lives."""
    return Health()


@router.get(
    "/readyz",
    summary="Whether pictures can be made",
    responses={503: {"model": Readiness, "description": "Not now; `reason` says why"}},
)
async def get_readiness(services: Shared, response: Response) -> Readiness:
    """Whether the broker answers and a worker that makes pictures is alive."""
    try:
        await services.store.run(probe())
        heard = await services.heard()
    except (StoreUnavailable, StoreFull) as error:
        response.status_code = 503
        return Readiness(ready=False, broker=isinstance(error, StoreFull), workers=0, reason=str(error))
    live = [item.announcement for item in heard if item.live]
    if any(queue.startswith("generate.") for announcement in live for queue in announcement.queues):
        return Readiness(ready=True, broker=True, workers=len(live))
    response.status_code = 503
    return Readiness(ready=False, broker=True, workers=len(live), reason="no worker that makes pictures is alive")
