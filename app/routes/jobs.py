"""What every kind of job answers alike: poll, list, events, cancel."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from app.answers import JobAnswer, JobPage, job_answer
from app.api_keys import Owner
from app.content_type import sent_as_json
from app.errors import NothingLeft
from app.openapi import problems
from app.services import Services, Shared, follower
from app.waiting import ended
from contract.errors import JobMissing
from contract.job_store import START
from contract.jobs import JobRecord, JobState
from contract.kinds import JobKind
from contract.patterns import CURSOR, EVENT
from contract.transitions import cancel, find, list_jobs

EVENT_SECONDS = 900.0
"""How long one stream of events lasts at most; clients reconnect by themselves and miss nothing."""

SMALL = 64 * 1024
"""Bytes of a body that brings no prompts by the thousand."""

RETRY_MILLISECONDS = 2_000
"""After which browsers come back to a stream that was cut because its gateway stops."""

_NUMBERS = ("attempt", "step", "steps")

LastEventId = Annotated[str, Header(alias="Last-Event-ID", pattern=EVENT)]
Cursor = Annotated[str, Query(pattern=CURSOR, description="`next_cursor` of the page before")]


def job_routes(kind: JobKind, max_body_size: int | None = SMALL) -> APIRouter:
    """The routes of one kind, to which its own POST is added; `max_body_size` None is the application's own bound."""
    router = APIRouter(
        prefix=f"/v1/{kind}s",
        tags=[f"{kind}s"],
        responses=problems(401, 422, 503),
        max_body_size=max_body_size,
    )
    found, of_one, noun = _finder(kind), problems(404, 410), with_article(kind)

    async def unseen(
        services: Shared, record: Annotated[JobRecord, Depends(found)], last_event_id: LastEventId = START
    ) -> JobRecord:
        if record.state.terminal and not await services.store.any_event_after(record.id, last_event_id):
            raise NothingLeft
        return record

    @router.get("", name=f"list_{kind}s", summary=f"List {kind}s, newest first")
    async def index(
        services: Shared,
        owner: Owner,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        cursor: Cursor = "0",
        status: JobState | None = None,
    ) -> JobPage:
        page = await services.store.run(list_jobs(kind, owner, status, before=int(cursor), limit=limit))
        return JobPage(
            data=[job_answer(record) for record in page.records],
            next_cursor=str(page.cursor) if page.cursor else None,
        )

    @router.get("/{job}", name=f"get_{kind}", summary=f"Look at {noun}", responses=of_one)
    async def poll(record: Annotated[JobRecord, Depends(found)]) -> JobAnswer:
        return job_answer(record)

    @router.get(
        "/{job}/events",
        name=f"follow_{kind}",
        summary=f"Follow {noun} by server-sent events",
        response_class=EventSourceResponse,
        responses={
            204: {"description": "The job has ended, and you have seen all its events"},
            **of_one,
            **problems(429),
        },
        dependencies=[Depends(follower)],
    )
    async def events(
        request: Request,
        services: Shared,
        record: Annotated[JobRecord, Depends(unseen)],
        last_event_id: LastEventId = START,
    ) -> AsyncIterator[ServerSentEvent]:
        stopping: asyncio.Event = request.app.state.stopping
        async with aclosing(_events(services, record, last_event_id, stopping)) as stream:
            async for event in stream:
                yield event

    @router.post(
        "/{job}/cancel",
        name=f"cancel_{kind}",
        summary=f"Cancel {noun}; repeating it changes nothing",
        responses=of_one,
    )
    async def stop(services: Shared, record: Annotated[JobRecord, Depends(found)]) -> JobAnswer:
        await services.store.run(cancel(record.id))
        return job_answer(await services.store.run(find(record.id)))

    return router


def accepting(kind: JobKind, more: dict[int | str, Any] | None = None) -> dict[str, Any]:
    """What is said of a kind's own POST."""
    return {
        "name": f"create_{kind}",
        "summary": f"Ask for {with_article(kind)}",
        "status_code": 202,
        "dependencies": [Depends(sent_as_json)],
        "responses": {
            200: {"model": JobAnswer, "description": "It has ended within the wait"},
            **problems(400, 413, 415, 429),
            **(more or {}),
        },
    }


def with_article(kind: JobKind) -> str:
    """Such as "an evaluation"."""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _finder(kind: JobKind) -> Callable[..., Coroutine[Any, Any, JobRecord]]:
    async def found(job: str, services: Shared, owner: Owner) -> JobRecord:
        record = await services.store.run(find(job))
        if record.kind != kind or record.owner != owner:
            raise JobMissing(f"there is no such {kind}")
        return record

    return found


async def _events(
    services: Services, record: JobRecord, after: str, stopping: asyncio.Event
) -> AsyncGenerator[ServerSentEvent, None]:
    until = time.monotonic() + EVENT_SECONDS
    if await services.store.dropped(record.id, after):
        yield ServerSentEvent(event="events-dropped", data={})
    async with aclosing(services.store.events(record.id, after)) as stream:
        async for item in stream:
            if item is not None:
                event, fields = item
                shown = {name: int(value) if name in _NUMBERS else value for name, value in fields.items()}
                yield ServerSentEvent(event=str(shown.pop("type")), id=event, data=shown)
                if ended(fields) or time.monotonic() > until:
                    return
            elif time.monotonic() > until or await _over(services, record):
                return
            if stopping.is_set():
                yield ServerSentEvent(retry=RETRY_MILLISECONDS, comment="the gateway stops; come back for the rest")
                return


async def _over(services: Services, record: JobRecord) -> bool:
    try:
        return (await services.store.run(find(record.id))).state.terminal
    except JobMissing:
        return True
