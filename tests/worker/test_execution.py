"""Whatever happens in a job becomes one terminal state with a reason, and the worker lives on."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
import torch
from safetensors import SafetensorError

import worker.execution
from contract.errors import ImageStoreError
from contract.jobs import JobRecord, JobState
from contract.results import Result
from contract.transitions import cancel, claim, find, reap, submit
from quant.errors import CheckpointError, ModelError
from tests.support.submissions import QUEUE, RESULT, submission
from tests.support.valkey import Valkey
from worker.claims import ClaimLoop
from worker.compute import ComputeThread
from worker.execution import execute
from worker.lease import JobLease
from worker.runtime import Runtime

Work = Callable[[Runtime, JobLease, JobRecord], Result]


@pytest.fixture
def run(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Callable[[Work], JobRecord]:
    """Submits a job, has the worker do `work` for it, and answers the record."""

    def run(work: Work) -> JobRecord:
        monkeypatch.setattr(worker.execution, "job_of", lambda kind: work)
        job = runtime.store.run(submit(submission(), open_jobs=9)).id
        ClaimLoop(runtime, execute, ComputeThread()).drain()
        return runtime.store.run(find(job))

    return run


def _raising(error: BaseException) -> Work:
    def work(runtime: Runtime, lease: JobLease, record: JobRecord) -> Result:
        raise error

    return work


def test_a_result_is_stored(run: Callable[[Work], JobRecord]) -> None:
    record = run(lambda runtime, lease, record: RESULT)
    assert (record.state, record.result) == (JobState.SUCCEEDED, RESULT)


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), "out-of-memory"),
        (torch.OutOfMemoryError("CUDA"), "out-of-memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out-of-memory"),
        (ImageStoreError("no room", full=True), "storage-full"),
        (OSError(errno.ENOSPC, "No space left on device", "secret"), "storage-full"),
        (OSError(errno.EACCES, "Permission denied", "secret"), "storage-unusable"),
        (OSError(errno.EROFS, "Read-only file system", "secret"), "storage-unusable"),
        (FileNotFoundError(errno.ENOENT, "No such file", "secret"), "storage-unusable"),
        (CheckpointError("cannot be written"), "variant-unusable"),
        (_caused(CheckpointError("cannot be written"), OSError(errno.ENOSPC, "secret")), "storage-full"),
        (_caused(RuntimeError("secret"), OSError(errno.EDQUOT, "secret")), "storage-full"),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), "storage-full"),
        (SafetensorError("I/O error: Read-only file system (os error 30)"), "storage-unusable"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), "storage-unusable"),
        (SafetensorError('I/O error: Os { code: 28, kind: StorageFull, message: "secret" }'), "storage-full"),
        (SafetensorError('I/O error: Os { code: 30, kind: ReadOnlyFilesystem, message: "x" }'), "storage-unusable"),
        (ModelError("model /srv/secret/models/mine cannot be loaded"), "model-unusable"),
        (RuntimeError("secret"), "internal"),
        (KeyError("secret"), "internal"),
    ],
)
def test_an_error_is_a_reason(run: Callable[[Work], JobRecord], error: Exception, code: str) -> None:
    record = run(_raising(error))
    assert record.state is JobState.FAILED
    assert record.error is not None
    assert record.error.code == code
    assert "secret" not in record.error.message
    assert run(lambda runtime, lease, record: RESULT).state is JobState.SUCCEEDED


def test_errors_of_quant_keep_their_code(run: Callable[[Work], JobRecord]) -> None:
    from quant.errors import InvalidPicture

    record = run(_raising(InvalidPicture("picture 0 is flat")))
    assert record.error is not None
    assert (record.error.code, record.error.message) == ("invalid-output", "picture 0 is flat")


def test_a_cancellation_is_met_at_the_next_step(run: Callable[[Work], JobRecord]) -> None:
    steps = []

    def work(runtime: Runtime, lease: JobLease, record: JobRecord) -> Result:
        on_step = lease.steps("denoise")
        for step in range(1, 10):
            steps.append(step)
            if step == 3:
                runtime.store.run(cancel(record.id))
            on_step(step, step)
        return RESULT

    assert run(work).state is JobState.CANCELED
    assert steps == [1, 2, 3]


def test_a_cancellation_between_last_step_and_end_wins(run: Callable[[Work], JobRecord]) -> None:
    def work(runtime: Runtime, lease: JobLease, record: JobRecord) -> Result:
        runtime.store.run(cancel(record.id))
        return RESULT

    record = run(work)
    assert (record.state, record.result) == (JobState.CANCELED, None)


def test_a_late_writer_changes_nothing(run: Callable[[Work], JobRecord]) -> None:
    attempts = []

    def work(runtime: Runtime, lease: JobLease, record: JobRecord) -> Result:
        attempts.append(record.attempt)
        if record.attempt == 1:
            runtime.store.run(reap(resend_seconds=10, now=(record.started or 0) + 20))
        return RESULT.model_copy(update={"seed": record.attempt})

    record = run(work)
    assert attempts == [1, 2]
    assert (record.attempt, record.result and record.result.seed) == (2, 2)


def test_a_worker_that_stops_puts_its_job_back(run: Callable[[Work], JobRecord], runtime: Runtime) -> None:
    def work(runtime: Runtime, lease: JobLease, record: JobRecord) -> Result:
        runtime.patience.draining.set()
        lease.progress("denoise", 1, 10)
        return RESULT

    assert run(work).state is JobState.QUEUED
    again = runtime.store.run(claim([QUEUE], "other"))
    assert again is not None
    assert again.attempt == 2


def test_a_job_of_another_release_is_refused_by_name_and_the_next_one_runs(
    run: Callable[[Work], JobRecord], runtime: Runtime, valkey: Valkey
) -> None:
    strange = runtime.store.run(submit(submission(), open_jobs=9)).id
    valkey.client.hset(f"facsimile:job:{strange}", "schema_version", "2")
    assert run(lambda runtime, lease, record: RESULT).state is JobState.SUCCEEDED
    state, code = valkey.client.hmget(f"facsimile:job:{strange}", "state", "code")
    assert (state, code) == ("failed", "unknown-version")
