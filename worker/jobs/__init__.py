"""What each kind of job does: one file per kind, named like it, with a function `run`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from contract.jobs import JobRecord
from contract.kinds import JobKind
from contract.results import Result

if TYPE_CHECKING:
    from worker.lease import JobLease
    from worker.runtime import Runtime


class Job(Protocol):
    """Does a job, telling the lease of its progress, and answers the result."""

    def __call__(self, runtime: Runtime, lease: JobLease, record: JobRecord) -> Result: ...


def job_of(kind: JobKind) -> Job:
    """The function of a kind. Its file is imported on first use, because it brings torch along."""
    return cast(Job, import_module(f"worker.jobs.{kind}").run)
