"""`Prefer: wait=N`: hold the answer until the job has ended, the time is over, or the client has left."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

from fastapi import Request

from app.preferences import preferences
from contract.errors import StoreUnavailable
from contract.job_store import START, AsyncJobStore
from contract.jobs import JobRecord, JobState
from contract.transitions import find

MAX_WAIT = 60


def preferred_wait(request: Request) -> int:
    """The seconds that a client is ready to wait, 0 if it did not say; never more than a minute."""
    seconds = preferences(request.headers.getlist("prefer")).get("wait", "")
    if not (seconds.isascii() and seconds.isdecimal()):
        return 0
    return min(MAX_WAIT, int(seconds[:9]))


def ended(fields: dict[str, str]) -> bool:
    """Whether an event says that its job is over."""
    return fields["type"] == "state" and JobState(fields["state"]).terminal


async def wait_for(store: AsyncJobStore, request: Request, record: JobRecord, seconds: int) -> JobRecord:
    """The record when the wait is over. A broker that goes down meanwhile, or a gateway that stops, ends it early: the
    job is accepted."""
    stopping: asyncio.Event = request.app.state.stopping
    until = time.monotonic() + seconds
    try:
        async with aclosing(store.events(record.id, START)) as events:
            async for event in events:
                if event and ended(event[1]):
                    break
                if time.monotonic() >= until or stopping.is_set() or await request.is_disconnected():
                    break
        return await store.run(find(record.id))
    except StoreUnavailable:
        return record
