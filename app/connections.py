"""Connections: how long a client may take to send a request, and how many may be open.

A connection that sends nothing, or half a request, costs nobody else anything: it is closed after `RECEIVE_SECONDS`,
and earlier where its place is needed."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.errors import problem_answer

RECEIVE_SECONDS = 15.0
"""From the connection, or the first byte of a further request on it, to the request's last byte."""

MOST = 800
"""Open connections, below the usual limit of 1,024 files; idle ones make room for new ones."""


class Connection(H11Protocol):
    """uvicorn's connection with a deadline for receiving, and with problems for answers of its own."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to receive the first request."""
        super().connection_made(transport)
        self._arm()
        if len(self.connections) > MOST:
            others = (each for each in self.connections if isinstance(each, Connection) and each is not self)
            idle = next((each for each in others if each.idle), None)
            if idle is None:
                self._refuse("overloaded", "too many connections are open; try again in a moment")
            else:
                idle.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Receive more of a request."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Go on with what was sent meanwhile."""
        super().on_response_complete()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        self._refuse("bad-request", msg)

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        cycle: Any = self.cycle  # None before the first request, whatever its annotation says
        return cycle is None or cycle.response_complete

    def _watch(self) -> None:
        if self.transport.is_closing():
            self._disarm()
        elif self.conn.their_state is h11.SEND_BODY or (
            self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]
        ):
            self._arm()
        else:
            self._disarm()

    def _arm(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(RECEIVE_SECONDS, self._late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        if self.idle and self.conn.trailing_data[0]:
            self._refuse("request-timeout", "the request did not arrive in time")
        else:
            self.transport.close()

    def _refuse(self, code: str, detail: str) -> None:
        """Answer without any request, and close. The other end may have sent anything, so h11's state may be any."""
        answer = problem_answer(code, detail)
        answer.headers["Connection"] = "close"
        lines = [b"HTTP/1.1 %d " % answer.status_code, *(b"\r\n%b: %b" % pair for pair in answer.raw_headers)]
        self.transport.write(b"".join([*lines, b"\r\n\r\n", bytes(answer.body)]))
        self.transport.close()
