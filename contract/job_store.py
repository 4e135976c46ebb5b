"""The clients that run a Call: one blocks (worker), one is asynchronous (gateway). Neither decides anything."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from contract.broker import Timeouts
from contract.call import PREFIX, Call, source
from contract.errors import StoreUnavailable

Answer = TypeVar("Answer")
Fields = dict[str, str]

START = "0-0"
"""The id before a stream's first event."""

_BLOCK_MILLISECONDS = 1_000
"""How long one read of a stream waits: well below the gateway's socket timeout."""


class JobStore:
    """The store for a process that may block."""

    def __init__(self, url: str, timeouts: Timeouts) -> None:
        self._redis = redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **_options(timeouts))

    def run(self, call: Call[Answer]) -> Answer:
        """Run a call. Raises StoreUnavailable, and what reading the answer raises."""
        with _translated():
            script = self._redis.register_script(source(call.script))
            reply = script(keys=[PREFIX], args=[call.encoded()])
        return call.read(reply)

    def close(self) -> None:
        """Close all connections."""
        self._redis.close()


class AsyncJobStore:
    """The store for a process that must not block."""

    def __init__(self, url: str, timeouts: Timeouts) -> None:
        self._redis = redis.asyncio.Redis.from_url(url, retry=AsyncRetry(NoBackoff(), 0), **_options(timeouts))

    async def run(self, call: Call[Answer]) -> Answer:
        """Run a call. Raises StoreUnavailable, and what reading the answer raises."""
        with _translated():
            script = self._redis.register_script(source(call.script))
            reply = await script(keys=[PREFIX], args=[call.encoded()])
        return call.read(reply)

    async def events(self, job: str, after: str) -> AsyncGenerator[tuple[str, Fields] | None, None]:
        """A job's events after the one with id `after`, as (id, fields), as they happen; None now and then while
        nothing happens, so that the reader can look whether it should go on. Never ends by itself."""
        name = f"{PREFIX}events:{job}"
        while True:
            with _translated():
                streams: Any = await self._redis.xread({name: after}, count=100, block=_BLOCK_MILLISECONDS)
            for event, fields in streams[0][1] if streams else ():
                after = event
                yield event, fields
            if not streams:
                yield None

    async def dropped(self, job: str, after: str) -> bool:
        """Whether events after `after` are gone because the stream is bounded."""
        with _translated():
            try:
                stream: Any = await self._redis.xinfo_stream(f"{PREFIX}events:{job}")
            except redis.exceptions.ResponseError:
                return False
        trimmed = stream["entries-added"] > stream["length"]
        return trimmed and _order(after) < _order(stream["first-entry"][0])

    async def ping(self) -> None:
        """Raises StoreUnavailable unless the broker answers."""
        with _translated():
            await self._redis.ping()

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()


def _options(timeouts: Timeouts) -> dict[str, Any]:
    return {
        "decode_responses": True,
        "socket_timeout": timeouts.read,
        "socket_connect_timeout": timeouts.connect,
        "health_check_interval": 5,
        "protocol": 2,  # one shape of reply, whatever the server prefers
    }


def _order(event: str) -> tuple[int, ...]:
    return tuple(int(part) for part in event.split("-"))


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
        raise StoreUnavailable("the broker does not answer") from error
    except redis.exceptions.OutOfMemoryError as error:
        raise StoreUnavailable("the broker's memory is full") from error
