"""The lease on a running job: held by every step and by a guard thread between steps, lost when both fall silent."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import structlog

from contract.errors import StoreUnavailable
from contract.job_store import JobStore
from contract.jobs import JobProgress, JobRecord
from contract.transitions import Claimant, Verdict, renew

EXIT_STALLED = 75
"""Exit status of a worker whose job made no progress for too long."""

_PROGRESS_INTERVAL = 0.1
"""Seconds between two renewals by steps: quicker steps are not all told to the store."""

_log = structlog.get_logger(__name__)


class JobInterrupted(Exception):
    """The job must stop here; raised out of a progress callback."""


class JobCanceled(JobInterrupted):
    """Its user canceled it."""


class DeadlineExceeded(JobInterrupted):
    """It ran longer than it may."""


class JobFenced(JobInterrupted):
    """Another attempt owns it by now."""


class JobReleased(JobInterrupted):
    """This worker has to stop, and the job would take too long to finish first."""


_INTERRUPTIONS: dict[Verdict, type[JobInterrupted]] = {
    "canceled": JobCanceled,
    "deadline": DeadlineExceeded,
    "fenced": JobFenced,
}


@dataclass(frozen=True)
class Patience:
    """How long a job may be silent before the worker gives itself up, and how much longer it may run once the worker
    was told to stop (`draining` is set)."""

    stall_seconds: float
    drain_seconds: float
    draining: threading.Event = field(default_factory=threading.Event)


class JobLease:
    """Holds a job while the `with` block runs. Its progress callback raises JobInterrupted to stop the job."""

    def __init__(self, store: JobStore, record: JobRecord, patience: Patience) -> None:
        self.claimant = Claimant(record.id, record.attempt)
        self._store = store
        self._interval = record.lease_seconds / 3
        self._patience = patience
        self._verdict: Verdict = "go"
        self._closed = threading.Event()
        self._guard = threading.Thread(target=self._keep, name=f"lease-{record.id}", daemon=True)
        self._started = self._last_step = time.monotonic()
        self._last_told = 0.0

    def __enter__(self) -> Self:
        self._guard.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closed.set()
        self._guard.join()

    def steps(self, stage: str) -> Callable[[int, int], None]:
        """A callback for a loop of one stage: called with the steps done and their number."""
        return lambda step, steps: self.progress(stage, step, steps)

    def progress(self, stage: str, step: int, steps: int, note: str = "") -> None:
        """Note progress and go on, or raise JobInterrupted."""
        now = time.monotonic()
        if now - self._last_told >= _PROGRESS_INTERVAL or step == steps:
            self._last_told = now
            self._renew(JobProgress(stage=stage, step=step, steps=steps, note=note[:200]))
        self._last_step = now
        if self._verdict != "go":
            raise _INTERRUPTIONS[self._verdict]
        if self._patience.draining.is_set() and self._seconds_left(step, steps) > self._patience.drain_seconds:
            raise JobReleased

    def _seconds_left(self, step: int, steps: int) -> float:
        elapsed = time.monotonic() - self._started
        return elapsed / step * (steps - step) if step else float("inf")

    def _renew(self, progress: JobProgress | None) -> None:
        try:
            verdict = self._store.run(renew(self.claimant, progress))
        except StoreUnavailable as error:
            _log.warning("lease not renewed", error=str(error))
            return
        except Exception:
            _log.exception("lease not renewed")
            return
        if verdict != "go":
            self._verdict = verdict

    def _keep(self) -> None:
        while not self._closed.wait(self._interval):
            if time.monotonic() - self._last_step > self._patience.stall_seconds:
                _log.critical("job stalled: the worker ends itself", job=self.claimant.job, stacks=_stacks())
                os._exit(EXIT_STALLED)
            self._renew(None)


def _stacks() -> dict[str, list[str]]:
    """Where every thread is, outermost first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return {
        names.get(ident, str(ident)): [
            f"{each.filename}:{each.lineno} {each.name}" for each in traceback.extract_stack(frame)
        ]
        for ident, frame in sys._current_frames().items()
    }
