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
from contract.event_reader import Event, EventReader, order

Answer = TypeVar("Answer")

START = "0-0"
"""The id before a stream's first event."""


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
    """The store for a process that must not block: at most `connections` calls at once, while the others wait, and all
    events through one more."""

    def __init__(self, url: str, timeouts: Timeouts, connections: int = 64) -> None:
        self._redis = _asynchronous(url, timeouts, connections)
        self._blocking = _asynchronous(url, timeouts, 1)
        self._events = EventReader(self._redis, self._blocking, _translated)

    async def run(self, call: Call[Answer]) -> Answer:
        """Run a call. Raises StoreUnavailable, and what reading the answer raises."""
        with _translated():
            script = self._redis.register_script(source(call.script))
            reply = await script(keys=[PREFIX], args=[call.encoded()])
        return call.read(reply)

    def events(self, job: str, after: str) -> AsyncGenerator[Event | None, None]:
        """A job's events after the one with id `after`, as (id, fields), as they happen; None now and then while
        nothing happens, so that the reader can look whether it should go on. Never ends by itself."""
        return self._events.events(job, after)

    async def any_event_after(self, job: str, after: str) -> bool:
        """Whether a job has an event after the one with id `after`."""
        with _translated():
            return bool(await self._redis.xrange(f"{PREFIX}events:{job}", min=f"({after}", count=1))

    async def dropped(self, job: str, after: str) -> bool:
        """Whether events after `after` are gone because the stream is bounded."""
        with _translated():
            try:
                stream: Any = await self._redis.xinfo_stream(f"{PREFIX}events:{job}")
            except redis.exceptions.ResponseError:
                return False
        trimmed = stream["entries-added"] > stream["length"]
        return trimmed and order(after) < order(stream["first-entry"][0])

    async def ping(self) -> None:
        """Raises StoreUnavailable unless the broker answers."""
        with _translated():
            await self._redis.ping()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._events.close()
        await self._blocking.aclose()
        await self._redis.aclose()


def _options(timeouts: Timeouts) -> dict[str, Any]:
    return {
        "decode_responses": True,
        "socket_timeout": timeouts.read,
        "socket_connect_timeout": timeouts.connect,
        "health_check_interval": 5,
        "protocol": 2,  # one shape of reply, whatever the server prefers
    }


def _asynchronous(url: str, timeouts: Timeouts, connections: int) -> redis.asyncio.Redis:
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=timeouts.read,
        retry=AsyncRetry(NoBackoff(), 0),
        **_options(timeouts),
    )
    return redis.asyncio.Redis.from_pool(pool)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (redis.exceptions.RedisError, OSError) as error:
        raise StoreUnavailable(f"the broker {_fault(error)}") from error


def _fault(error: Exception) -> str:
    """What is wrong with a broker that cannot be used, for people."""
    for kind, fault in _FAULTS.items():
        if isinstance(error, kind) or isinstance(error.__cause__, kind):
            return fault
    return next((fault for sign, fault in _REFUSALS.items() if sign in str(error)), "refuses; its log says why")


_FAULTS: dict[type[Exception], str] = {
    redis.exceptions.AuthenticationError: "asks for another password",
    redis.exceptions.BusyLoadingError: "is still loading its data",
    redis.exceptions.ConnectionError: "does not answer",
    redis.exceptions.TimeoutError: "does not answer",
    OSError: "does not answer",
    redis.exceptions.OutOfMemoryError: "has no memory left",
    redis.exceptions.ReadOnlyError: "is a replica that takes no writes",
    redis.exceptions.NoPermissionError: "does not allow this user what the service needs",
}
"""The first that fits counts: the first two are connection errors as well."""

_REFUSALS = {
    "MISCONF": "cannot write its files: its disk may be full",
    "NOREPLICAS": "has too few replicas to take writes",
    "read only replica": "is a replica that takes no writes",
    "BUSY": "is busy with another script",
}
"""What other refusals say, and what that means."""
