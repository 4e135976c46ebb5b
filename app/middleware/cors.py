"""Pages of other origins, where FACSIMILE_CORS_ORIGINS lets them in."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi.middleware import Middleware
from fastapi.middleware.cors import CORSMiddleware

_METHODS = ("GET", "HEAD", "POST")
_ASKED = ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "Prefer", "X-Request-ID")
_ANSWERED = ("ETag", "Idempotency-Replayed", "Location", "Preference-Applied", "Retry-After", "X-Request-ID")


def cors(origins: Sequence[str]) -> Middleware:
    """What lets pages of these origins send our headers and read our answers'."""
    return Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=_METHODS,
        allow_headers=_ASKED,
        expose_headers=_ANSWERED,
    )
