"""Events of many jobs for many followers through one connection: complete, in order, and at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from contract.broker import Timeouts
from contract.call import PREFIX
from contract.errors import StoreUnavailable
from contract.job_store import START, AsyncJobStore
from tests.support.valkey import Valkey

JOBS = 150


@asynccontextmanager
async def opened(valkey: Valkey) -> AsyncIterator[AsyncJobStore]:
    store = AsyncJobStore(valkey.url, Timeouts(read=2, connect=1), connections=4)
    try:
        yield store
    finally:
        await store.aclose()


def add(valkey: Valkey, job: str, number: int) -> str:
    return str(valkey.client.xadd(f"{PREFIX}events:{job}", {"number": str(number)}))


async def numbers(events: AsyncGenerator[Any, None], count: int) -> list[int]:
    found: list[int] = []
    async for event in events:
        if event is not None:
            found.append(int(event[1]["number"]))
        if len(found) == count:
            return found
    return found


@pytest.fixture
def served(valkey: Valkey) -> Callable[[Callable[[AsyncJobStore], Coroutine[Any, Any, Any]]], Any]:
    valkey.client.flushall()

    def run(scenario: Callable[[AsyncJobStore], Coroutine[Any, Any, Any]]) -> Any:
        async def main() -> Any:
            async with opened(valkey) as store:
                return await asyncio.wait_for(scenario(store), 60)

        return asyncio.run(main())

    return run


def test_many_streams_take_one_connection(valkey: Valkey, served: Any) -> None:
    async def scenario(store: AsyncJobStore) -> int:
        streams = [store.events(f"job-{index}", START) for index in range(JOBS)]
        following = [asyncio.create_task(numbers(stream, 3)) for stream in streams]
        await asyncio.sleep(0.5)
        connections = len(valkey.client.client_list())
        for number in range(3):
            for index in range(JOBS):
                add(valkey, f"job-{index}", number)
        assert await asyncio.gather(*following) == [[0, 1, 2]] * JOBS
        for stream in streams:
            await stream.aclose()
        return connections

    before = len(valkey.client.client_list())
    assert served(scenario) - before <= 5  # four for calls, one for all events


def test_each_follower_of_one_job_gets_what_came_after_its_own_place(valkey: Valkey, served: Any) -> None:
    async def scenario(store: AsyncJobStore) -> None:
        ids = [add(valkey, "one", number) for number in range(3)]
        async with (
            aclosing(store.events("one", START)) as first,
            aclosing(store.events("one", ids[1])) as second,
            aclosing(store.events("one", ids[2])) as third,
        ):
            assert await numbers(first, 3) == [0, 1, 2]
            assert await numbers(second, 1) == [2]
            waiting = asyncio.create_task(numbers(third, 1))
            await asyncio.sleep(0.1)
            add(valkey, "one", 3)
            assert await waiting == [3]
            assert await numbers(first, 1) == [3]
            assert await numbers(second, 1) == [3]
        async with aclosing(store.events("one", START)) as again:
            assert await numbers(again, 4) == [0, 1, 2, 3]

    served(scenario)


def test_a_new_follower_does_not_wait_for_the_others_streams(valkey: Valkey, served: Any) -> None:
    async def scenario(store: AsyncJobStore) -> list[float]:
        delays = []
        async with aclosing(store.events("quiet", START)) as quiet:
            idle = asyncio.create_task(anext(quiet))
            await asyncio.sleep(0.2)
            for index in range(5):
                add(valkey, f"late-{index}", index)
                start = time.monotonic()
                async with aclosing(store.events(f"late-{index}", START)) as late:
                    assert await numbers(late, 1) == [index]
                delays.append(time.monotonic() - start)
            assert await idle is None
        return delays

    assert sorted(served(scenario))[2] < 0.5  # one read of the others lasts a second


def test_a_broker_that_goes_down_ends_every_stream_with_the_reason(served: Any) -> None:
    with Valkey() as other:

        async def scenario() -> list[str]:
            async with opened(other) as store:
                following = [asyncio.create_task(numbers(store.events(job, START), 1)) for job in "abc"]
                await asyncio.sleep(0.3)
                other.client.shutdown(nosave=True)
                results = await asyncio.gather(*following, return_exceptions=True)
            return [type(result).__name__ for result in results]

        assert asyncio.run(scenario()) == [StoreUnavailable.__name__] * 3
