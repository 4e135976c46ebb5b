"""Clients that hang on: so many for each key, the rest are told, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from app.settings import GatewaySettings
from contract.job_store import JobStore
from contract.transitions import Claimant, claim, find, reap, renew
from tests.support.gateway import GENERATION
from tests.support.serving import serving
from tests.support.valkey import Valkey

STREAMS, AT_ONCE = 150, 30
KEYS = ("first-long-enough-key", "second-long-enough-key")


def headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def locked(settings: GatewaySettings, tmp_path: Path) -> GatewaySettings:
    keys = tmp_path / "keys"
    keys.write_text("\n".join(KEYS))
    return settings.model_copy(update={"api_keys_file": keys, "lease_seconds": 1.0, "reap_seconds": 0.2})


def test_one_keys_streams_are_bounded_and_cost_the_others_nothing(
    locked: GatewaySettings, valkey: Valkey, store: JobStore
) -> None:
    async def scenario(url: str) -> tuple[Counter[int], list[float], list[float], str]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, timeout=30, limits=limits) as client:
            job = (await client.post("/v1/generations", json=GENERATION, headers=headers(KEYS[0]))).json()
            before = await polled(client)
            opened = asyncio.Queue[int]()
            follow, statuses = [], Counter[int]()
            for _ in range(0, STREAMS, AT_ONCE):
                more = [asyncio.create_task(followed(client, job["links"]["events"], opened)) for _ in range(AT_ONCE)]
                statuses.update([await opened.get() for _ in more])
                follow += more
            killed = store.run(claim(["generate.tiny"], "killed"))  # and never heard of again
            assert killed is not None
            during = await polled(client)
            waited = await client.post(
                "/v1/generations", json=GENERATION, headers={**headers(KEYS[0]), "Prefer": "wait=30"}
            )
            assert waited.status_code == 202  # at once: its key hangs on often enough
            state = await asyncio.to_thread(given_back, killed.id)
            for task in follow:
                task.cancel()
            await asyncio.gather(*follow, return_exceptions=True)
        return statuses, before, during, state

    def given_back(job: str) -> str:
        end = time.monotonic() + 20
        while (state := store.run(find(job)).state) != "queued" and time.monotonic() < end:
            time.sleep(0.1)
        return str(state)

    async def polled(client: httpx.AsyncClient) -> list[float]:
        seconds = []
        for _ in range(100):
            start = time.perf_counter()
            answer = await client.get("/v1/generations", headers=headers(KEYS[1]))
            assert answer.status_code == 200
            seconds.append(time.perf_counter() - start)
        return sorted(seconds)

    async def followed(client: httpx.AsyncClient, path: str, opened: asyncio.Queue[int]) -> None:
        async with client.stream("GET", path, headers=headers(KEYS[0])) as answer:
            opened.put_nowait(answer.status_code)
            async for _ in answer.aiter_lines():
                pass

    with serving(locked, valkey.url) as url:
        statuses, before, during, state = asyncio.run(scenario(url))
    assert statuses[200] >= 100 and statuses[200] + statuses[429] == STREAMS
    assert state == "queued", "the reaper did not give a killed worker's job back"
    assert during[94] < max(10 * before[94], 0.25)  # a blocked poll takes seconds


def test_a_closed_stream_makes_room(locked: GatewaySettings, valkey: Valkey, store: JobStore) -> None:
    with serving(locked, valkey.url) as url, httpx.Client(base_url=url, timeout=30, headers=headers(KEYS[0])) as client:
        job = client.post("/v1/generations", json=GENERATION).json()
        record = store.run(claim(["generate.tiny"], "w"))
        assert record is not None
        for _ in range(130):
            with client.stream("GET", job["links"]["events"]) as answer:
                assert answer.status_code == 200
        assert store.run(renew(Claimant(record.id, record.attempt))) in ("go", "fenced")
        assert store.run(reap(resend_seconds=60)) is not None
