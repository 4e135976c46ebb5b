"""What can be done to a job, as calls of the scripts in contract/scripts: each is one atomic step in the store."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from contract.call import Call
from contract.errors import IdempotencyConflict, JobLost, JobMissing, QueueFull, RecordUnreadable, StoreFull
from contract.jobs import SCHEMA_VERSION, JobError, JobMessage, JobProgress, JobRecord, JobState
from contract.kinds import JobKind
from contract.payloads import Payload
from contract.results import Result

_log = logging.getLogger(__name__)
_LONGEST_RETRY = 300
"""Seconds: nobody is told to come back later than this."""

Verdict = Literal["go", "canceled", "deadline", "fenced"]


@dataclass(frozen=True)
class JobLimits:
    """Bounds that travel with a job from its acceptance on, so that gateway and worker cannot disagree."""

    lease_seconds: float = 15.0
    max_attempts: int = 2
    time_limit_seconds: float = 3600.0
    retention_seconds: int = 86_400


@dataclass(frozen=True)
class Submission:
    """A job to accept. `owner` is who may see it; `idempotency` is the scoped key, empty for none."""

    kind: JobKind
    queue: str
    payload: Payload
    limits: JobLimits = JobLimits()
    owner: str = ""
    request_id: str = ""
    idempotency: str = ""
    body_hash: str = ""


@dataclass(frozen=True)
class Accepted:
    """A job's id, and whether it had been accepted before under the same idempotency key."""

    id: str
    replayed: bool


@dataclass(frozen=True)
class Page:
    """One page of a list, newest first; `cursor` is where the next one starts."""

    records: tuple[JobRecord, ...]
    cursor: int | None


@dataclass(frozen=True)
class Claimant:
    """Who writes about a running job: another attempt's writes change nothing."""

    job: str
    attempt: int


def submit(submission: Submission, *, open_jobs: int, now: float = 0.0) -> Call[Accepted]:
    """Accept a job while fewer than `open_jobs` of its queue are open. The answer raises QueueFull, StoreFull or
    IdempotencyConflict."""
    arguments = {
        "now": now,
        "nonce": uuid.uuid4().hex,
        "epoch": uuid.uuid4().hex[:8],
        "schema_version": SCHEMA_VERSION,
        "kind": submission.kind,
        "queue": submission.queue,
        "payload": submission.payload.model_dump_json(),
        "owner": submission.owner,
        "request_id": submission.request_id,
        "idempotency": submission.idempotency,
        "body_hash": submission.body_hash,
        "open_jobs": open_jobs,
        **asdict(submission.limits),
    }
    return Call("submit", arguments, _read_submission)


def claim(queues: Sequence[str], worker: str, *, now: float = 0.0) -> Call[JobRecord | None]:
    """Take the longest waiting job of these queues; None when all are empty. The answer raises RecordUnreadable for a
    job that was taken and cannot be read."""
    return Call("claim", {"now": now, "queues": list(queues), "worker": worker}, _read_claim)


def renew(claimant: Claimant, progress: JobProgress | None = None, *, now: float = 0.0) -> Call[Verdict]:
    """Extend the lease, note progress, and learn whether to go on."""
    shown = progress.model_dump() if progress else {"stage": "", "step": 0, "steps": 0, "note": ""}
    return Call("renew", {"now": now, **asdict(claimant), **shown}, str)  # type: ignore[arg-type]


def succeed(claimant: Claimant, result: Result, *, now: float = 0.0) -> Call[str]:
    """End a job well. Answers its state from now on (a cancellation wins), or `fenced`."""
    return _finish(claimant, JobState.SUCCEEDED, {"now": now, "result": result.model_dump_json()})


def fail(claimant: Claimant, error: JobError, *, now: float = 0.0) -> Call[str]:
    """End a job with a reason. Answers as `succeed` does."""
    return _finish(claimant, JobState.FAILED, {"now": now, **error.model_dump()})


def acknowledge_cancel(claimant: Claimant, *, now: float = 0.0) -> Call[str]:
    """End a job that was told to stop. Answers as `succeed` does."""
    return _finish(claimant, JobState.CANCELED, {"now": now})


def release(claimant: Claimant, *, now: float = 0.0) -> Call[str]:
    """Put a running job back in line at no cost to its attempts. Answers `queued`, `canceled` or `fenced`."""
    return Call("release", {"now": now, **asdict(claimant)}, str)


def cancel(job: str, *, now: float = 0.0) -> Call[JobState | None]:
    """Ask a job to stop. Answers its state at once after, None for an unknown job."""
    return Call("cancel", {"now": now, "job": job}, lambda reply: JobState(reply) if reply else None)


def reap(*, resend_seconds: float, now: float = 0.0) -> Call[list[JobMessage]]:
    """Repair what crashes left behind. Answers the tokens that have to be sent."""
    arguments = {"now": now, "resend_seconds": resend_seconds, "kinds": list(JobKind)}
    return Call("reap", arguments, lambda reply: [JobMessage(queue=queue, job=job) for queue, job in reply])


def probe() -> Call[None]:
    """Whether the store would take a job now. The answer raises StoreFull."""
    return Call("probe", {}, _read_probe)


def find(job: str) -> Call[JobRecord]:
    """A job's record. The answer raises JobMissing, JobLost for an id of another data set, or RecordUnreadable."""
    return Call("find", {"job": job}, _read_find)


def list_jobs(kind: JobKind, owner: str, state: JobState | None, *, before: int, limit: int) -> Call[Page]:
    """Jobs of one owner and kind, newest first, from the cursor `before` on (0: the newest). Those whose record is of
    another release are left out."""
    arguments = {"kind": kind, "owner": owner, "state": state or "", "before": before, "limit": limit}
    return Call("list", arguments, _read_page)


def _finish(claimant: Claimant, state: JobState, arguments: dict[str, Any]) -> Call[str]:
    blank = {"result": "", "code": "", "message": ""}
    return Call("finish", {**blank, **asdict(claimant), "state": state, **arguments}, str)


def _read_submission(reply: list[str]) -> Accepted:
    outcome, job, *pace = reply
    if outcome == "full":
        oldest, waiting = map(float, pace)
        seconds = min(_LONGEST_RETRY, max(1, round(oldest / max(1.0, waiting))))
        raise QueueFull("this queue has as many open jobs as the service admits; try again later", seconds)
    if outcome == "memory":
        raise StoreFull("the broker's memory is nearly full; try again later")
    if outcome == "conflict":
        raise IdempotencyConflict(f"this Idempotency-Key came with another body before, for job {job}")
    return Accepted(job, replayed=outcome == "replayed")


def _read_probe(reply: str) -> None:
    if reply == "memory":
        raise StoreFull("the broker's memory is nearly full")


def _read_claim(reply: list[str] | None) -> JobRecord | None:
    return _record(reply) if reply else None


def _read_find(reply: list[str] | str) -> JobRecord:
    if reply == "lost":
        raise JobLost("this job was accepted by a store that has been emptied since; submit it again")
    if isinstance(reply, str):
        raise JobMissing("there is no such job, or it ended longer ago than jobs are kept")
    return _record(reply)


def _read_page(reply: list[Any]) -> Page:
    cursor, *records = reply
    return Page(tuple(_readable(records)), int(cursor) if cursor else None)


def _readable(records: list[list[str]]) -> Iterator[JobRecord]:
    for flat in records:
        try:
            yield _record(flat)
        except RecordUnreadable as error:
            _log.warning("left out of a list: %s", error)


def _record(flat: Sequence[str]) -> JobRecord:
    return JobRecord.from_fields(dict(zip(flat[::2], flat[1::2], strict=True)))
