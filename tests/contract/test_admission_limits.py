"""What bounds accepted work: each queue for itself, and the broker's memory, of which a part is kept for work that was
accepted before."""

from __future__ import annotations

import pytest

from contract.announcements import Announcement, RollCall, announce, census
from contract.catalogue import Catalogue
from contract.errors import QueueFull, StoreFull
from contract.job_store import JobStore
from contract.jobs import JobProgress, JobState
from contract.transitions import (
    Claimant,
    JobLimits,
    Submission,
    cancel,
    claim,
    find,
    probe,
    reap,
    renew,
    submit,
    succeed,
)
from tests.support.submissions import PAYLOAD, QUEUE, RESULT, submission
from tests.support.valkey import Valkey

NOTHING = Catalogue(models={}, methods={}, families=(), metrics=(), schedulers=(), presets={}, prompt_sets=())


def other(queue: str, **changes: object) -> Submission:
    given = submission()
    return Submission(given.kind, queue, given.payload, **{"limits": given.limits, **changes})  # type: ignore[arg-type]


def test_a_full_queue_does_not_close_the_others(store: JobStore) -> None:
    for _ in range(3):
        store.run(submit(other("evaluate"), open_jobs=3))
    with pytest.raises(QueueFull):
        store.run(submit(other("evaluate"), open_jobs=3))
    store.run(submit(submission(), open_jobs=3))


def test_running_jobs_count_in_their_own_queue(store: JobStore) -> None:
    store.run(submit(submission(), open_jobs=1))
    assert store.run(claim([QUEUE], "w"))
    with pytest.raises(QueueFull):
        store.run(submit(submission(), open_jobs=1))
    store.run(submit(other("evaluate"), open_jobs=1))


@pytest.mark.parametrize(("waited", "depth", "seconds"), [(0, 1, 1), (30, 1, 30), (30, 3, 10), (9_000, 2, 300)])
def test_when_to_return_follows_from_the_pace_of_the_queue(
    store: JobStore, waited: float, depth: int, seconds: int
) -> None:
    for _ in range(depth):
        store.run(submit(submission(), open_jobs=depth, now=1_000.0))
    with pytest.raises(QueueFull) as refused:
        store.run(submit(submission(), open_jobs=depth, now=1_000.0 + waited))
    assert refused.value.retry_after == seconds


def test_a_crowded_memory_takes_no_jobs_and_ends_those_that_it_took(store: JobStore, valkey: Valkey) -> None:
    for _ in range(4):
        store.run(submit(submission(), open_jobs=99))
    running = [store.run(claim([QUEUE], "w")) for _ in range(2)]
    claimants = [Claimant(record.id, record.attempt) for record in running if record]
    used = int(valkey.client.info("memory")["used_memory"])
    try:
        valkey.client.config_set("maxmemory", int(used / 0.85))  # crowded, not full
        with pytest.raises(StoreFull):
            store.run(submit(submission(), open_jobs=99))
        with pytest.raises(StoreFull):
            store.run(probe())
        assert store.run(census()).counts["refused:memory"] == 1
        valkey.client.config_set("maxmemory", used // 2)  # full: plain writes are refused
        assert store.run(renew(claimants[0], JobProgress(stage="denoise", step=1, steps=2))) == "go"
        assert store.run(succeed(claimants[0], RESULT)) == "succeeded"
        store.run(announce(Announcement(worker="w", queues=(QUEUE,), device="cpu", catalogue=NOTHING, loaded=())))
        assert store.run(RollCall().call()).catalogue == NOTHING
        next_one = store.run(claim([QUEUE], "w"))
        assert next_one is not None
        assert store.run(cancel(next_one.id)) is JobState.RUNNING
        store.run(reap(resend_seconds=1))
        assert store.run(find(claimants[0].job)).state is JobState.SUCCEEDED
    finally:
        valkey.client.config_set("maxmemory", 0)
    store.run(probe())
    store.run(submit(submission(), open_jobs=99))


def test_an_idempotency_key_lives_as_long_as_its_job(store: JobStore, valkey: Valkey) -> None:
    limits = JobLimits(retention_seconds=5)
    first = store.run(submit(other(QUEUE, limits=limits, idempotency="key", body_hash="a"), open_jobs=9)).id
    keys = list(valkey.client.scan_iter("facsimile:idempotency:*"))
    assert len(keys) == 1
    assert valkey.client.ttl(keys[0]) > 86_400  # while the job waits, however short its retention
    record = store.run(claim([QUEUE], "w"))
    assert record is not None
    store.run(succeed(Claimant(record.id, record.attempt), RESULT))
    assert 0 < valkey.client.ttl(keys[0]) <= 5
    again = store.run(submit(other(QUEUE, limits=limits, idempotency="key", body_hash="a"), open_jobs=9))
    assert (again.id, again.replayed) == (first, True)


def test_what_an_ended_job_leaves_is_small(store: JobStore, valkey: Valkey) -> None:
    name = store.run(submit(submission(), open_jobs=9)).id
    record = store.run(claim([QUEUE], "w"))
    assert record is not None
    claimant = Claimant(record.id, record.attempt)
    for step in range(40):
        store.run(renew(claimant, JobProgress(stage="denoise", step=step, steps=40)))
    store.run(succeed(claimant, RESULT))
    assert 0 < valkey.client.ttl(f"facsimile:events:{name}") <= 600
    assert valkey.client.ttl(f"facsimile:job:{name}") > 600
    assert valkey.client.memory_usage(f"facsimile:job:{name}") < 3_000
    assert PAYLOAD.prompt in str(valkey.client.hget(f"facsimile:job:{name}", "payload"))
