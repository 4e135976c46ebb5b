"""A job as clients see it."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel

from contract.jobs import JobError, JobProgress, JobRecord, JobState
from contract.kinds import JobKind
from contract.payloads import Payload
from contract.results import Result


class Links(BaseModel):
    """Where a job is, where its events are, and where it is canceled."""

    self: str
    events: str
    cancel: str


class JobAnswer(BaseModel):
    """A job: what was asked with every default filled in, how far it is, and its result or why it failed."""

    id: str
    kind: JobKind
    status: JobState
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    attempt: int
    progress: JobProgress | None
    request: Payload
    result: Result | None
    error: JobError | None
    links: Links


class JobPage(BaseModel):
    """Jobs, newest first; `next_cursor` is None on the last page."""

    data: list[JobAnswer]
    next_cursor: str | None


def job_url(kind: JobKind, job: str) -> str:
    """The path of a job."""
    return f"/v1/{kind}s/{job}"


def job_answer(record: JobRecord) -> JobAnswer:
    """The answer that shows a record."""
    url = job_url(record.kind, record.id)
    ended = record.finished
    return JobAnswer(
        id=record.id,
        kind=record.kind,
        status=record.state,
        created_at=_time(record.created),
        started_at=_time(record.started) if record.started else None,
        finished_at=_time(ended) if ended else None,
        expires_at=_time(ended + record.retention_seconds) if ended else None,
        attempt=record.attempt,
        progress=record.progress,
        request=record.payload,
        result=record.result,
        error=record.error,
        links=Links(self=url, events=f"{url}/events", cancel=f"{url}/cancel"),
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
