"""The Lua scripts against a model, over random histories with a clock of their own."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from contract.announcements import census
from contract.broker import WORKER_TIMEOUTS
from contract.errors import QueueFull
from contract.job_store import JobStore
from contract.jobs import JobError, JobState
from contract.results import GenerationResult
from contract.transitions import (
    Claimant,
    acknowledge_cancel,
    cancel,
    claim,
    fail,
    find,
    reap,
    release,
    renew,
    submit,
    succeed,
)
from tests.support.submissions import LIMITS, QUEUE, submission
from tests.support.valkey import Valkey

OPEN_JOBS = 4
RESULT = GenerationResult(images=(), seed=1, seconds={}, digest=None, score=None)


@dataclass
class Expected:
    """What the machine knows about a job without asking the store."""

    state: JobState = JobState.QUEUED
    attempt: int = 0
    released: int = 0
    cancel_requested: bool = False
    lease_until: float = 0.0
    deadline: float = 0.0
    history: list[JobState] = field(default_factory=list)

    def owned(self, attempt: int) -> bool:
        return self.state is JobState.RUNNING and self.attempt == attempt


class JobStates(RuleBasedStateMachine):
    store: JobStore
    valkey: Valkey

    jobs = Bundle("jobs")
    claims = Bundle("claims")

    @initialize()
    def begin(self) -> None:
        self.valkey.client.flushall()
        self.now = 1_000_000.0
        self.expected: dict[str, Expected] = {}

    @rule(target=jobs)
    def submit(self) -> str:
        open_jobs = sum(not job.state.terminal for job in self.expected.values())
        try:
            accepted = self.store.run(submit(submission(), open_jobs=OPEN_JOBS, now=self.now))
        except QueueFull:
            assert open_jobs >= OPEN_JOBS
            return "none"
        assert open_jobs < OPEN_JOBS
        self.expected[accepted.id] = Expected()
        return accepted.id

    @rule(target=claims)
    def claim(self) -> Claimant:
        waiting = [name for name, job in self.expected.items() if job.state is JobState.QUEUED]
        record = self.store.run(claim([QUEUE, "generate.empty"], "worker", now=self.now))
        for name in waiting:
            job = self.expected[name]
            if job.attempt - job.released < LIMITS.max_attempts:
                assert record is not None
                assert record.id == name, "first come, first served"
                job.state, job.attempt = JobState.RUNNING, job.attempt + 1
                job.lease_until = self.now + LIMITS.lease_seconds
                job.deadline = self.now + LIMITS.time_limit_seconds
                return Claimant(record.id, record.attempt)
            job.state = JobState.FAILED
        assert record is None
        return Claimant("none", 0)

    @rule(seconds=st.sampled_from([1, 5, 14, 16, 60, 120]))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(claimant=claims)
    def renew(self, claimant: Claimant) -> None:
        verdict = self.store.run(renew(claimant, now=self.now))
        job = self.expected.get(claimant.job)
        if job is None or not job.owned(claimant.attempt):
            assert verdict == "fenced"
        elif job.cancel_requested:
            assert verdict == "canceled"
        elif self.now >= job.deadline:
            assert verdict == "deadline"
        else:
            assert verdict == "go"
            job.lease_until = self.now + LIMITS.lease_seconds

    @rule(claimant=claims, how=st.sampled_from(["succeed", "fail", "cancel"]))
    def finish(self, claimant: Claimant, how: str) -> None:
        call = {
            "succeed": succeed(claimant, RESULT, now=self.now),
            "fail": fail(claimant, JobError(code="internal", message="because"), now=self.now),
            "cancel": acknowledge_cancel(claimant, now=self.now),
        }[how]
        outcome = self.store.run(call)
        job = self.expected.get(claimant.job)
        if job is None or not job.owned(claimant.attempt):
            assert outcome == "fenced", "a late writer changes nothing"
            return
        asked = {"succeed": JobState.SUCCEEDED, "fail": JobState.FAILED, "cancel": JobState.CANCELED}[how]
        job.state = JobState.CANCELED if job.cancel_requested else asked
        assert outcome == job.state

    @rule(claimant=claims)
    def release(self, claimant: Claimant) -> None:
        outcome = self.store.run(release(claimant, now=self.now))
        job = self.expected.get(claimant.job)
        if job is None or not job.owned(claimant.attempt):
            assert outcome == "fenced"
        elif job.cancel_requested:
            job.state = JobState.CANCELED
        else:
            job.state, job.released = JobState.QUEUED, job.released + 1

    @rule(name=jobs)
    def cancel(self, name: str) -> None:
        state = self.store.run(cancel(name, now=self.now))
        job = self.expected.get(name)
        if job is None:
            assert state is None
            return
        if job.state is JobState.QUEUED:
            job.state = JobState.CANCELED
        job.cancel_requested |= not job.state.terminal or job.state is JobState.CANCELED
        assert state == job.state

    @rule()
    def reap(self) -> None:
        tokens = self.store.run(reap(resend_seconds=10, now=self.now))
        for job in self.expected.values():
            if job.state is JobState.RUNNING and job.lease_until <= self.now:
                late = JobState.FAILED if self.now >= job.deadline else JobState.QUEUED
                job.state = JobState.CANCELED if job.cancel_requested else late
                if job.state is JobState.QUEUED:
                    assert tokens, "a job put back is announced at once"

    @invariant()
    def store_agrees(self) -> None:
        for name, job in self.expected.items():
            record = self.store.run(find(name))
            assert (record.state, record.attempt) == (job.state, job.attempt)
            assert job.attempt - job.released <= LIMITS.max_attempts
            assert (record.result is not None) == (record.state is JobState.SUCCEEDED)
            assert (record.error is not None) == (record.state is JobState.FAILED)
            assert (record.finished is not None) == record.state.terminal
            if job.history and job.history[-1].terminal:
                assert job.history[-1] == record.state, "a terminal state is final"
            job.history.append(record.state)

    @invariant()
    def counters_agree(self) -> None:
        figures = self.store.run(census())
        states = [job.state for job in self.expected.values()]
        assert figures.open_jobs == sum(not state.terminal for state in states)
        finished = {name: total for name, total in figures.counts.items() if name.startswith("finished:")}
        assert finished == {
            f"finished:generation:{state}": states.count(state) for state in set(states) if state.terminal
        }
        assert sum(queue.depth for queue in figures.queues) == states.count(JobState.QUEUED)
        assert self.valkey.client.zcard("facsimile:leases") == states.count(JobState.RUNNING)


@pytest.mark.timeout(120)
def test_every_history_keeps_the_promises(valkey: Valkey) -> None:
    JobStates.valkey = valkey
    JobStates.store = JobStore(valkey.url, WORKER_TIMEOUTS)
    few = settings(max_examples=300, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(JobStates, settings=few)
    JobStates.store.close()
