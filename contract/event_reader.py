"""Events of any number of jobs through one connection, however many clients follow them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio

from contract.call import PREFIX
from contract.errors import ContractError

Fields = dict[str, str]
Event = tuple[str, Fields]
Translated = Callable[[], AbstractContextManager[None]]

_BLOCK_MILLISECONDS = 1_000
"""How long one read waits: well below the gateway's socket timeout."""

_IDLE_SECONDS = 1.0
"""After so long without an event a follower is told that there is none."""

_JOIN_ROUNDS, _JOIN_SECONDS = 100, 0.005
"""How often a new follower wakes the reader up, and how long it waits in between."""


@dataclass
class _Stream:
    """A job's events: how far they were read, and the queues of those who follow them."""

    read: str
    followers: set[asyncio.Queue[Event | ContractError]] = field(default_factory=set)


class EventReader:
    """One blocking read for all streams that somebody follows; it runs while there are any."""

    def __init__(self, client: redis.asyncio.Redis, blocking: redis.asyncio.Redis, translated: Translated) -> None:
        self._client = client
        self._blocking = blocking
        self._translated = translated
        self._streams: dict[str, _Stream] = {}
        self._asked: dict[str, _Stream] = {}
        self._reader: asyncio.Task[None] | None = None
        self._connection: int | None = None

    async def events(self, job: str, after: str) -> AsyncGenerator[Event | None, None]:
        """A job's events after the one with id `after`, as they happen; None now and then while nothing happens. Never
        ends by itself. Raises StoreUnavailable."""
        name, queue = f"{PREFIX}events:{job}", asyncio.Queue[Event | ContractError]()
        known = name in self._streams
        stream = self._streams.setdefault(name, _Stream(after))
        stream.followers.add(queue)
        try:
            if known:  # the reader is further on: what it has read already is read once more, for this follower
                for event in await self._history(name, after):
                    after = event[0]
                    yield event
            else:
                await self._join(name, stream)
            while True:
                item = await _next(queue)
                if isinstance(item, ContractError):
                    raise item
                if item is None or order(item[0]) > order(after):
                    after = item[0] if item else after
                    yield item
        finally:
            self._leave(name, stream, queue)

    async def close(self) -> None:
        """Stop reading."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait({self._reader})

    async def _history(self, name: str, after: str) -> list[Event]:
        with self._translated():
            events: Any = await self._client.xrange(name, min=f"({after}")
            return list(events)

    async def _join(self, name: str, stream: _Stream) -> None:
        """Have the reader ask for a stream that it does not know yet: it may be waiting for the others."""
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        for _ in range(_JOIN_ROUNDS):
            if self._asked.get(name) is stream or self._reader.done():
                return
            if self._connection is not None and self._asked:
                with self._translated():
                    await self._client.client_unblock(self._connection)
            await asyncio.sleep(_JOIN_SECONDS)

    def _leave(self, name: str, stream: _Stream, queue: asyncio.Queue[Event | ContractError]) -> None:
        stream.followers.discard(queue)
        if not stream.followers and self._streams.get(name) is stream:
            del self._streams[name]

    async def _read(self) -> None:
        try:
            with self._translated():
                while self._streams:
                    await self._read_once()
        except ContractError as error:
            for stream in self._streams.values():
                for queue in stream.followers:
                    queue.put_nowait(error)
            self._streams.clear()
        finally:
            self._asked, self._connection = {}, None

    async def _read_once(self) -> None:
        if self._connection is None:
            self._connection = int(await self._blocking.client_id())
        self._asked = dict(self._streams)
        positions: Any = {name: stream.read for name, stream in self._asked.items()}
        replies: Any = await self._blocking.xread(positions, count=100, block=_BLOCK_MILLISECONDS)
        for name, events in replies or ():
            self._asked[name].read = events[-1][0]
            for queue in self._asked[name].followers:
                for event in events:
                    queue.put_nowait(event)


def order(event: str) -> tuple[int, ...]:
    """What ids of events are sorted by."""
    return tuple(int(part) for part in event.split("-"))


async def _next(queue: asyncio.Queue[Event | ContractError]) -> Event | ContractError | None:
    try:
        async with asyncio.timeout(_IDLE_SECONDS):
            return await queue.get()
    except TimeoutError:
        return None
