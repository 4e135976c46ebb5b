"""Errors in the words of a library (the web page's, Starlette's) become problems, like all others."""

from __future__ import annotations

import json

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import code_of_status, problem_answer

_LONGEST = 64 * 1024
_KEPT = ("allow", "retry-after", "vary", "access-control-allow-origin", "access-control-allow-credentials")


class PlainErrors:
    """ASGI middleware. Only short texts and `{"detail": ...}` are replaced: other bodies are a route's own answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and replace its answer if need be."""
        start: Message | None = None
        body = bytearray()

        async def translated(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _foreign(message):
                start = message
                return
            if start is None or message["type"] != "http.response.body":
                await send(message)
                return
            body.extend(message.get("body", b""))
            if not message.get("more_body", False):
                await _answer(start, bytes(body), scope, receive, send)

        await self._app(scope, receive, translated if scope["type"] == "http" else send)


def _foreign(start: Message) -> bool:
    headers = Headers(raw=start["headers"])
    kind = headers.get("content-type", "").partition(";")[0]
    short = int(headers.get("content-length", "0")) <= _LONGEST
    return start["status"] >= 400 and kind in ("application/json", "text/plain", "") and short


async def _answer(start: Message, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
    detail = _detail(body)
    if detail is None:
        await send(start)
        await send({"type": "http.response.body", "body": body})
        return
    answer = problem_answer(code_of_status(start["status"]), detail)
    answer.status_code = start["status"]
    for name, value in Headers(raw=start["headers"]).items():
        if name in _KEPT:
            answer.headers[name] = value
    await answer(scope, receive, send)


def _detail(body: bytes) -> str | None:
    """The sentence in an error's body; None if the body says more than a sentence."""
    text = body.decode("utf-8", "replace")
    try:
        read = json.loads(text)
    except ValueError:
        return text.strip() or "the request failed"
    if isinstance(read, dict) and set(read) == {"detail"} and isinstance(read["detail"], str):
        return str(read["detail"])
    return None
