"""Bounds on request bodies, whether their length is announced or not."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import problem_answer

SMALL = 64 * 1024
LARGE = 1024 * 1024
"""For calibrations, which may bring a thousand prompts, and for the web page."""


class BodyLimit:
    """ASGI middleware. Answers 413 before anything is read when a length is announced, else as soon as it is passed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = _limit(scope["path"])
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > limit:
            await problem_answer("body-too-large", _too_large(limit))(scope, receive, send)
            return
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > limit:
                raise HTTPException(413, _too_large(limit))
            return message

        await self._app(scope, counted, send)


def _limit(path: str) -> int:
    small = path.startswith("/v1/") and not path.startswith("/v1/calibrations")
    return SMALL if small else LARGE


def _too_large(limit: int) -> str:
    return f"the body may have {limit // 1024} KiB"
