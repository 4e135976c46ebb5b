"""Health: whether the process lives, and whether it can make pictures now."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel

from app.services import Shared
from contract.broker import Line
from contract.errors import StoreFull, StoreUnavailable
from contract.transitions import probe

GENERATE = Line.GENERATE.queue("")

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The process answers."""

    status: str = "ok"


class Readiness(BaseModel):
    """Whether pictures can be made now, and the reason if not; and which models cannot be loaded now."""

    ready: bool
    broker: bool
    workers: int
    reason: str | None = None
    unusable_models: list[str] = []


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
    served = {queue: each for each in live for queue in each.queues if queue.startswith(GENERATE)}
    usable = [queue for queue, each in served.items() if queue.removeprefix(GENERATE) not in each.unusable]
    unusable = sorted(queue.removeprefix(GENERATE) for queue in served.keys() - set(usable))
    if usable:
        return Readiness(ready=True, broker=True, workers=len(live), unusable_models=unusable)
    response.status_code = 503
    reason = "no model can be loaded" if unusable else "no worker that makes pictures is alive"
    return Readiness(ready=False, broker=True, workers=len(live), reason=reason, unusable_models=unusable)
