from __future__ import annotations

import subprocess
import sys
import time

import pytest

from contract.jobs import JobRecord
from contract.transitions import JobLimits, Submission, claim, find, reap, submit
from tests.support.submissions import QUEUE, submission
from tests.support.valkey import Valkey
from worker.lease import EXIT_STALLED, JobFenced, JobLease
from worker.runtime import Runtime

STALL = """
import sys, time
from contract.broker import WORKER_TIMEOUTS
from contract.job_store import JobStore
from contract.transitions import claim
from worker.lease import JobLease, Patience
store = JobStore(sys.argv[1], WORKER_TIMEOUTS)
with JobLease(store, store.run(claim(["generate.tiny"], "worker")), Patience(0.5, 0)):
    time.sleep(60)
"""


def _claimed(runtime: Runtime, lease_seconds: float) -> JobRecord:
    given = submission()
    limits = JobLimits(lease_seconds=lease_seconds)
    runtime.store.run(submit(Submission(given.kind, given.queue, given.payload, limits), open_jobs=9))
    record = runtime.store.run(claim([QUEUE], "worker"))
    assert record is not None
    return record


def test_the_guard_holds_the_lease_between_steps(runtime: Runtime) -> None:
    record = _claimed(runtime, lease_seconds=3)
    with JobLease(runtime.store, record, runtime.patience):
        time.sleep(3.5)
        runtime.store.run(reap(resend_seconds=10))
        assert runtime.store.run(find(record.id)).state == "running"
    runtime.store.run(reap(resend_seconds=10, now=time.time() + 10))
    assert runtime.store.run(find(record.id)).state == "queued"


def test_progress_is_told_and_a_fence_is_met(runtime: Runtime) -> None:
    record = _claimed(runtime, lease_seconds=15)
    with JobLease(runtime.store, record, runtime.patience) as lease:
        lease.progress("denoise", 1, 2)
        shown = runtime.store.run(find(record.id)).progress
        assert shown is not None
        assert (shown.stage, shown.step, shown.steps) == ("denoise", 1, 2)
        runtime.store.run(reap(resend_seconds=10, now=time.time() + 60))
        with pytest.raises(JobFenced):
            lease.progress("denoise", 2, 2)


def test_a_broker_that_is_away_does_not_stop_the_job(runtime: Runtime, valkey: Valkey) -> None:
    record = _claimed(runtime, lease_seconds=15)
    with JobLease(runtime.store, record, runtime.patience) as lease:
        valkey.client.execute_command("CLIENT", "PAUSE", "100")
        for step in range(1, 4):
            lease.progress("denoise", step, 3)


def test_a_stalled_worker_ends_itself(runtime: Runtime, valkey: Valkey) -> None:
    given = submission()
    limits = JobLimits(lease_seconds=1)
    runtime.store.run(submit(Submission(given.kind, given.queue, given.payload, limits), open_jobs=9))
    ended = subprocess.run([sys.executable, "-c", STALL, valkey.url], capture_output=True, text=True, check=False)
    assert ended.returncode == EXIT_STALLED
    assert "MainThread" in ended.stdout + ended.stderr  # where every thread was
