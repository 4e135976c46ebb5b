"""One job from its claim to its end: whatever happens in it becomes a terminal state with a reason."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import structlog

from contract.call import Call
from contract.errors import ContractError, StoreUnavailable
from contract.jobs import JobError, JobRecord
from contract.payloads import SamplingPayload
from contract.transitions import acknowledge_cancel, fail, find, release, succeed
from worker.failures import OUT_OF_MEMORY, failure_of
from worker.jobs import job_of
from worker.lease import DeadlineExceeded, JobCanceled, JobFenced, JobLease, JobReleased
from worker.metrics import CANCEL_LATENCY_SECONDS, INVALID_IMAGES, JOB_SECONDS, QUEUE_WAIT_SECONDS
from worker.runtime import Runtime

_SETTLE_SECONDS = 60.0
"""How long the end of a job is repeated to a broker that does not answer, before the lease is left to expire."""

_log = structlog.get_logger(__name__)


def execute(runtime: Runtime, record: JobRecord) -> None:
    """Run a claimed job and settle it. Never raises an Exception."""
    with structlog.contextvars.bound_contextvars(job=record.id, request=record.request_id):
        _log.info("job started", kind=record.kind, attempt=record.attempt)
        QUEUE_WAIT_SECONDS.labels(record.kind).observe(max(0.0, (record.started or 0.0) - record.created))
        start = time.monotonic()
        with JobLease(runtime.store, record, runtime.patience) as lease:
            end = _end(runtime, record, lease)
            outcome = _settle(runtime, end) if end else "fenced"
        if outcome == "canceled":
            _observe_cancel(runtime, record)
        JOB_SECONDS.labels(record.kind, outcome).observe(time.monotonic() - start)
        _log.info("job ended", outcome=outcome, seconds=round(time.monotonic() - start, 3))


def _end(runtime: Runtime, record: JobRecord, lease: JobLease) -> Call[str] | None:
    claimant = lease.claimant
    try:
        return succeed(claimant, job_of(record.kind)(runtime, lease, record))
    except JobCanceled:
        return acknowledge_cancel(claimant)
    except JobReleased:
        return release(claimant)
    except JobFenced:
        return None
    except DeadlineExceeded:
        return fail(claimant, JobError(code="deadline-exceeded", message="the job ran longer than it may"))
    except Exception as error:
        return fail(claimant, _failure(runtime, record, error))


def _failure(runtime: Runtime, record: JobRecord, error: Exception) -> JobError:
    known = failure_of(error)
    if known is None:
        _log.exception("job failed")
        message = f"an unexpected {type(error).__name__} in the worker; its log has the details"
        return JobError(code="internal", message=message)
    _log.warning("job failed", code=known.code, exc_info=error)
    if known is OUT_OF_MEMORY:
        runtime.pipelines.clear()
        gc.collect()
    if known.code == "invalid-output" and isinstance(record.payload, SamplingPayload):
        INVALID_IMAGES.labels(record.payload.model, record.payload.variant).inc()
    return known


def _settle(runtime: Runtime, end: Call[str]) -> str:
    return _patiently(lambda: runtime.store.run(end))


def _patiently(write: Callable[[], str]) -> str:
    until = time.monotonic() + _SETTLE_SECONDS
    while True:
        try:
            return write()
        except StoreUnavailable as error:
            if time.monotonic() > until:
                _log.exception("job not settled: its lease will expire")
                return "unsettled"
            _log.warning("job not settled yet", error=str(error))
            time.sleep(0.5)


def _observe_cancel(runtime: Runtime, record: JobRecord) -> None:
    try:
        ended = runtime.store.run(find(record.id))
    except ContractError:
        return
    if ended.finished and ended.cancel_requested:
        CANCEL_LATENCY_SECONDS.observe(ended.finished - ended.cancel_requested)
