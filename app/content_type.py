"""Bodies are sent as JSON and say so: a form, or a body without a type, is refused with a sentence."""

from __future__ import annotations

from email.message import Message

from fastapi import Request

from app.errors import NotJson


async def sent_as_json(request: Request) -> None:
    """What every route with a body depends on. Raises NotJson."""
    header = request.headers.get("content-type")
    announced = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    if (header is None and announced) or (header is not None and not _is_json(header)):
        raise NotJson("send the body as JSON, with the header Content-Type: application/json")


def _is_json(header: str) -> bool:
    message = Message()
    message["Content-Type"] = header.strip()
    subtype = message.get_content_subtype()
    return message.get_content_maintype() == "application" and (subtype == "json" or subtype.endswith("+json"))
