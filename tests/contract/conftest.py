from __future__ import annotations

from collections.abc import Iterator

import pytest

from contract.broker import WORKER_TIMEOUTS
from contract.job_store import JobStore
from contract.kinds import JobKind
from contract.payloads import GenerationPayload
from contract.transitions import JobLimits, Submission
from tests.valkey import Valkey

PAYLOAD = GenerationPayload(
    prompt="a red cube",
    negative_prompt="",
    model="tiny",
    variant="reference",
    seed=1,
    num_inference_steps=2,
    guidance_scale=4.0,
    width=64,
    height=64,
    num_images=1,
    scheduler=None,
    output_format="png",
    score=False,
)
QUEUE = "generate.tiny"
LIMITS = JobLimits(lease_seconds=15, max_attempts=2, time_limit_seconds=100, retention_seconds=1000)


def submission(**changes: str) -> Submission:
    return Submission(kind=JobKind.GENERATION, queue=QUEUE, payload=PAYLOAD, limits=LIMITS, **changes)


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    with Valkey() as server:
        yield server


@pytest.fixture
def store(valkey: Valkey) -> Iterator[JobStore]:
    valkey.client.flushall()
    store = JobStore(valkey.url, WORKER_TIMEOUTS)
    yield store
    store.close()
