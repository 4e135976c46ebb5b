"""What pydantic found wrong, in one line for users."""

from __future__ import annotations

from pydantic import ValidationError


def faults(error: Exception) -> str:
    """Place and message of every fault of a ValidationError; other errors say it themselves."""
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(": ".join(filter(None, (".".join(map(str, each["loc"])), each["msg"]))) for each in error.errors())
