"""What the state machine does not reach: idempotency, the attempt cap, lost data sets, lists, tokens, events."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from contract.announcements import Announcement, RollCall, announce, census
from contract.broker import GATEWAY_TIMEOUTS
from contract.catalogue import Catalogue
from contract.errors import IdempotencyConflict, JobLost, JobMissing, QueueFull, StoreUnavailable
from contract.job_store import START, AsyncJobStore, JobStore
from contract.jobs import JobError, JobProgress, JobState
from contract.kinds import JobKind
from contract.stages import Stages
from contract.transitions import Claimant, cancel, claim, fail, find, list_jobs, reap, release, renew, submit
from tests.support.submissions import QUEUE, submission
from tests.support.valkey import Valkey


def _claim(store: JobStore, now: float = 0.0) -> Claimant:
    record = store.run(claim([QUEUE], "worker", now=now))
    assert record is not None
    return Claimant(record.id, record.attempt)


def test_a_job_that_takes_two_workers_down_is_poison(store: JobStore) -> None:
    job = store.run(submit(submission(), open_jobs=9, now=1.0)).id
    for start in (2.0, 100.0):
        assert _claim(store, start).job == job
        store.run(reap(resend_seconds=10, now=start + 16))
    assert store.run(claim([QUEUE], "worker", now=200.0)) is None
    record = store.run(find(job))
    assert (record.state, record.attempt) == (JobState.FAILED, 2)
    assert record.error is not None
    assert record.error.code == "poison"


def test_poison_does_not_hide_the_job_behind_it(store: JobStore) -> None:
    store.run(submit(submission(), open_jobs=9, now=1.0))
    for start in (2.0, 100.0):
        _claim(store, start)
        store.run(reap(resend_seconds=10, now=start + 16))
    behind = store.run(submit(submission(), open_jobs=9, now=150.0)).id
    assert _claim(store, 200.0) == Claimant(behind, 1)


def test_a_release_costs_no_attempt_and_keeps_the_place(store: JobStore) -> None:
    first = store.run(submit(submission(), open_jobs=9)).id
    store.run(submit(submission(), open_jobs=9))
    for attempt in range(1, 6):
        claimant = _claim(store)
        assert claimant == Claimant(first, attempt)
        assert store.run(release(claimant)) == "queued"


def test_parallel_duplicates_make_one_job(store: JobStore) -> None:
    twice = submission(idempotency="key", body_hash="a")
    with ThreadPoolExecutor(8) as pool:
        accepted = list(pool.map(lambda _: store.run(submit(twice, open_jobs=9)), range(50)))
    assert len({item.id for item in accepted}) == 1
    assert [item.replayed for item in accepted].count(False) == 1
    assert store.run(census()).open_jobs == 1
    with pytest.raises(IdempotencyConflict):
        store.run(submit(submission(idempotency="key", body_hash="b"), open_jobs=9))


def test_a_replay_is_answered_even_when_the_queue_is_full(store: JobStore) -> None:
    again = submission(idempotency="key", body_hash="a")
    job = store.run(submit(again, open_jobs=1)).id
    with pytest.raises(QueueFull):
        store.run(submit(submission(), open_jobs=1))
    assert store.run(submit(again, open_jobs=1)).id == job


def test_an_emptied_store_says_so(store: JobStore, valkey: Valkey) -> None:
    lost = store.run(submit(submission(), open_jobs=9)).id
    valkey.client.flushall()
    with pytest.raises(JobLost):
        store.run(find(lost))
    here = store.run(submit(submission(), open_jobs=9)).id
    with pytest.raises(JobLost):
        store.run(find(lost))
    with pytest.raises(JobMissing) as missing:
        store.run(find(here.partition("-")[0] + "-" + "0" * 32))
    assert not isinstance(missing.value, JobLost)


def test_tokens_are_sent_again_while_a_queue_waits(store: JobStore) -> None:
    job = store.run(submit(submission(), open_jobs=9, now=1.0)).id
    assert store.run(reap(resend_seconds=10, now=5.0)) == []
    for now in (12.0, 24.0):
        assert [(token.queue, token.job) for token in store.run(reap(resend_seconds=10, now=now))] == [(QUEUE, job)]
    _claim(store, 25.0)
    assert store.run(reap(resend_seconds=10, now=39.0)) == []


def test_a_cancellation_without_a_worker_ends_with_the_lease(store: JobStore) -> None:
    job = store.run(submit(submission(), open_jobs=9, now=1.0)).id
    claimant = _claim(store, 2.0)
    assert store.run(cancel(job, now=3.0)) is JobState.RUNNING
    assert store.run(renew(claimant, now=4.0)) == "canceled"
    store.run(reap(resend_seconds=10, now=20.0))
    assert store.run(find(job)).state is JobState.CANCELED


def test_a_deadline_is_kept_without_a_worker(store: JobStore) -> None:
    job = store.run(submit(submission(), open_jobs=9, now=1.0)).id
    claimant = _claim(store, 2.0)
    for now in range(3, 102, 9):
        assert store.run(renew(claimant, now=float(now))) == "go"
    assert store.run(renew(claimant, now=103.0)) == "deadline"
    store.run(reap(resend_seconds=10, now=130.0))
    record = store.run(find(job))
    assert record.error is not None
    assert record.error.code == "deadline-exceeded"


def test_lists_page_newest_first_by_owner_and_status(store: JobStore) -> None:
    mine = [store.run(submit(submission(owner="me"), open_jobs=99)).id for _ in range(5)]
    store.run(submit(submission(owner="you"), open_jobs=99))
    store.run(cancel(mine[2]))
    seen: list[str] = []
    before = 0
    while True:
        page = store.run(list_jobs(JobKind.GENERATION, "me", None, before=before, limit=2))
        seen += [record.id for record in page.records]
        if page.cursor is None:
            break
        before = page.cursor
    assert seen == mine[::-1]
    canceled = store.run(list_jobs(JobKind.GENERATION, "me", JobState.CANCELED, before=0, limit=9))
    assert [record.id for record in canceled.records] == [mine[2]]


def test_terminal_records_expire_and_leave_the_lists(store: JobStore, valkey: Valkey) -> None:
    job = store.run(submit(submission(), open_jobs=9)).id
    store.run(fail(_claim(store), JobError(code="internal", message="because")))
    assert 0 < valkey.client.ttl(f"facsimile:job:{job}") <= 1000
    assert 0 < valkey.client.ttl(f"facsimile:events:{job}") <= 1000
    valkey.client.delete(f"facsimile:job:{job}")
    store.run(reap(resend_seconds=10))
    assert valkey.client.zcard("facsimile:jobs:generation") == 0


def test_events_follow_and_say_what_was_dropped(store: JobStore, valkey: Valkey) -> None:
    job = store.run(submit(submission(), open_jobs=9)).id
    claimant = _claim(store)
    for step in range(300):
        store.run(renew(claimant, JobProgress(stage="denoise", step=step, steps=300)))

    async def read() -> tuple[list[dict[str, str]], bool, bool]:
        reader = AsyncJobStore(valkey.url, GATEWAY_TIMEOUTS)
        seen, last = [], START
        async for item in reader.events(job, START):
            if item is None:
                break
            last = item[0]
            seen.append(item[1])
        dropped = await reader.dropped(job, START), await reader.dropped(job, last)
        await reader.aclose()
        return seen, *dropped

    seen, from_start, from_end = asyncio.run(read())
    assert len(seen) == 256
    assert seen[-1] == {"type": "progress", "stage": "denoise", "step": "299", "steps": "300"}
    assert (from_start, from_end) == (True, False)


def test_workers_are_live_while_they_are_heard(store: JobStore, valkey: Valkey) -> None:
    nothing = Catalogue(models={}, methods={}, families=(), metrics=(), schedulers=(), presets={}, prompt_sets=())
    offer = nothing.model_copy(update={"methods": {"minmax": Stages()}})
    roll = RollCall()
    assert store.run(roll.call()).catalogue is None
    for name, catalogue in (("old", nothing), ("new", offer)):
        store.run(
            announce(Announcement(worker=name, queues=(f"q.{name}",), device="cpu", catalogue=catalogue, loaded=()))
        )
    assert store.run(roll.call()).catalogue == offer
    valkey.client.zincrby("facsimile:beats", -20, "old")
    heard = store.run(roll.call())
    assert {item.announcement.worker: item.live for item in heard.heard} == {"old": False, "new": True}
    assert heard.serves("q.old") and heard.serves("q.new")
    valkey.client.zincrby("facsimile:beats", -60, "old")
    later = store.run(roll.call())
    assert [item.announcement.worker for item in later.heard] == ["new"]
    assert not later.serves("q.old")
    assert valkey.client.hlen("facsimile:catalogues") == 1
    valkey.client.zincrby("facsimile:beats", -90, "new")
    nobody = store.run(RollCall().call())
    assert (nobody.heard, nobody.catalogue) == ((), offer)  # what was offered last is still told


def test_a_catalogue_is_kept_once_however_many_workers_offer_it(store: JobStore, valkey: Valkey) -> None:
    nothing = Catalogue(models={}, methods={}, families=(), metrics=(), schedulers=(), presets={}, prompt_sets=())
    for number in range(300):
        store.run(announce(Announcement(worker=f"w{number}", queues=(), device="cpu", catalogue=nothing, loaded=())))
    assert valkey.client.hlen("facsimile:catalogues") == 1
    assert len(store.run(RollCall().call()).heard) == 300


def test_a_broker_that_is_not_there_is_one_error(store: JobStore) -> None:
    nowhere = JobStore("unix:///nowhere/valkey.sock", GATEWAY_TIMEOUTS)
    with pytest.raises(StoreUnavailable):
        nowhere.run(census())
