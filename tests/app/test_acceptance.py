"""Accepting a job, as every dialect does it: against a real store, without a request of any protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Coroutine, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pytest

from app.acceptance import Acceptance, AcceptedJob, Asker, Idempotency
from app.api_keys import EVERYONE, ApiKey
from app.errors import Forbidden, NoWorker
from app.offer import Offer
from app.settings import GatewaySettings
from app.wake_up import TokenSender
from contract.announcements import Heard, Roll, census
from contract.broker import WORKER_TIMEOUTS
from contract.errors import IdempotencyConflict, QueueFull
from contract.job_store import AsyncJobStore, JobStore
from contract.jobs import JobState
from contract.kinds import JobKind
from contract.payloads import CalibrationPayload, ComparisonPayload, EvaluationPayload, Payload
from contract.recipe import Recipe
from contract.role import Role
from contract.transitions import claim
from tests.support.gateway import ANNOUNCEMENT, CATALOGUE
from tests.support.submissions import PAYLOAD
from tests.support.valkey import Valkey

Answer = TypeVar("Answer")

USER = Asker(ApiKey("key:phone", Role.USER, ""), "request-1")
OTHER = Asker(ApiKey("key:tablet", Role.USER, ""), "request-2")
ADMIN = Asker(EVERYONE, "request-3")
PAYLOADS: dict[JobKind, Payload] = {
    JobKind.GENERATION: PAYLOAD,
    JobKind.COMPARISON: ComparisonPayload.model_validate(PAYLOAD.model_dump(exclude={"output_format", "score"})),
    JobKind.CALIBRATION: CalibrationPayload(
        model="tiny", variant="mine", recipe=Recipe(method="minmax"), prompts="tiny-prompts", held_out=4
    ),
    JobKind.EVALUATION: EvaluationPayload(
        model="tiny", variants=("mine",), prompt_sets=("tiny-prompts",), limit=2, metrics=(), seed=5
    ),
}


@dataclass(frozen=True)
class Door:
    """Accepts against the store of one server. Every call has a loop and connections of its own."""

    valkey: Valkey
    tokens: TokenSender
    settings: GatewaySettings

    def accept(self, payload: Payload = PAYLOAD, asker: Asker = USER, again: Idempotency | None = None) -> AcceptedJob:
        """What becomes of a generation."""
        return self.accept_kind(JobKind.GENERATION, payload, asker, again)

    def accept_kind(
        self, kind: JobKind, payload: Payload, asker: Asker, again: Idempotency | None = None
    ) -> AcceptedJob:
        """What becomes of a job of any kind."""

        async def accepted() -> AcceptedJob:
            store = AsyncJobStore(self.valkey.url, WORKER_TIMEOUTS)
            offer = Offer(CATALOGUE, Roll((Heard(ANNOUNCEMENT, 0.0),)))
            acceptance = Acceptance(store, self.tokens, offer, self.settings.limits, self.settings.open_jobs)
            try:
                return await acceptance.accept(kind, payload, asker, again)
            finally:
                await store.aclose()

        return _run(accepted())

    def woken_for(self, queue: str, count: int) -> list[str]:
        """The jobs that tokens in a queue name, once there are so many of them and no more come."""
        until = time.monotonic() + 10
        while self.valkey.client.llen(queue) < count and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.2)
        bodies = [json.loads(message)["body"] for message in self.valkey.client.lrange(queue, 0, -1)]
        tokens = [json.loads(base64.b64decode(body))[0][0] for body in bodies]
        assert all(token["queue"] == queue for token in tokens)
        return sorted(token["job"] for token in tokens)


def _run(answer: Coroutine[Any, Any, Answer]) -> Answer:
    return asyncio.run(answer)


@pytest.fixture
def door(valkey: Valkey, store: JobStore, settings: GatewaySettings) -> Iterator[Door]:
    with closing(TokenSender(valkey.url)) as tokens:
        yield Door(valkey, tokens, settings)


@pytest.mark.parametrize(
    ("kind", "queue"),
    [
        (JobKind.GENERATION, "generate.tiny"),
        (JobKind.COMPARISON, "generate.tiny"),
        (JobKind.CALIBRATION, "calibrate"),
        (JobKind.EVALUATION, "evaluate"),
    ],
)
def test_a_worker_of_the_kinds_queue_is_woken_and_gets_the_job(
    door: Door, store: JobStore, kind: JobKind, queue: str
) -> None:
    accepted = door.accept_kind(kind, PAYLOADS[kind], ADMIN)
    assert (accepted.replayed, accepted.record.state, accepted.record.owner) == (False, JobState.QUEUED, "")
    assert door.woken_for(queue, 1) == [accepted.record.id]
    claimed = store.run(claim([queue], "w"))
    assert claimed is not None
    assert (claimed.id, claimed.kind, claimed.payload) == (accepted.record.id, kind, PAYLOADS[kind])
    assert claimed.request_id == "request-3"


@pytest.mark.parametrize("kind", [JobKind.CALIBRATION, JobKind.EVALUATION])
def test_a_user_may_not_have_hours_of_work_done(door: Door, store: JobStore, kind: JobKind) -> None:
    with pytest.raises(Forbidden, match=r"user.*calibrator"):
        door.accept_kind(kind, PAYLOADS[kind], USER)
    calibrator = Asker(replace(USER.key, role=Role.CALIBRATOR), "request")
    assert door.accept_kind(kind, PAYLOADS[kind], calibrator).record.owner == "key:phone"
    assert store.run(census()).open_jobs == 1


def test_what_nobody_serves_is_not_kept(door: Door, store: JobStore) -> None:
    with pytest.raises(NoWorker, match=r"generate\.unserved"):
        door.accept(PAYLOAD.model_copy(update={"model": "unserved"}))
    assert store.run(census()).open_jobs == 0


def test_a_repeated_key_is_answered_with_the_first_job_and_wakes_nobody(door: Door) -> None:
    again = Idempotency("key", "digest-of-the-body")
    first, second = door.accept(again=again), door.accept(again=again)
    assert (second.record.id, second.replayed) == (first.record.id, True)
    other = door.accept()
    assert door.woken_for("generate.tiny", 2) == sorted((first.record.id, other.record.id))


def test_a_key_belongs_to_its_owner_and_to_what_was_asked(door: Door) -> None:
    again = Idempotency("key", "digest-of-the-body")
    mine = door.accept(again=again)
    theirs = door.accept(asker=OTHER, again=again)
    assert theirs.record.id != mine.record.id and not theirs.replayed
    of_another_kind = door.accept_kind(JobKind.COMPARISON, PAYLOADS[JobKind.COMPARISON], USER, again)
    assert not of_another_kind.replayed
    with pytest.raises(IdempotencyConflict):
        door.accept(again=Idempotency("key", "another-digest"))


def test_a_full_queue_refuses(door: Door) -> None:
    narrow = replace(door, settings=door.settings.model_copy(update={"open_jobs": 1}))
    narrow.accept()
    with pytest.raises(QueueFull):
        narrow.accept()


@pytest.mark.parametrize(
    ("kind", "seconds"), [(JobKind.GENERATION, "7"), (JobKind.CALIBRATION, "900"), (JobKind.EVALUATION, "900")]
)
def test_a_job_keeps_the_limits_that_it_was_accepted_with(
    door: Door, valkey: Valkey, kind: JobKind, seconds: str
) -> None:
    limits = {"time_limit_seconds": 7.0, "calibration_time_limit_seconds": 900.0, "retention_seconds": 50}
    limited = replace(door, settings=door.settings.model_copy(update=limits))
    job = limited.accept_kind(kind, PAYLOADS[kind], ADMIN).record
    assert job.retention_seconds == 50
    stored = valkey.client.hget(f"facsimile:job:{job.id}", "time_limit_seconds")
    assert float(str(stored)) == float(seconds)
