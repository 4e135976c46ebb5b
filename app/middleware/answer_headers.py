"""Headers of every answer that browsers read: nothing is guessed, framed or stored unless a route says otherwise."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

UNFRAMED = "frame-ancestors 'none'"


class AnswerHeaders:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and complete the headers of its answer."""

        async def completed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
                policy = headers.get("Content-Security-Policy", "")
                if "frame-ancestors" not in policy:
                    headers["Content-Security-Policy"] = f"{policy}; {UNFRAMED}" if policy else UNFRAMED
            await send(message)

        await self._app(scope, receive, completed)
