"""The last wall behind the bounded queue: so many requests are answered at once; more are asked to come back."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import problem_answer

MOST = 500
"""Requests at once, those that wait for jobs and follow events included."""

ALWAYS = ("/healthz", "/readyz", "/metrics")
"""What tells a supervisor how the service is answers in a crowd too."""


class Crowd:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http" or scope["path"] in ALWAYS:
            await self._app(scope, receive, send)
            return
        if self._inside >= MOST:
            answer = problem_answer("overloaded", "too many requests at once; try again in a moment")
            await answer(scope, receive, send)
            return
        self._inside += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._inside -= 1
