"""What pydantic found wrong, in one line for users."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import ValidationError

Place = tuple[int | str, ...]


def _dotted(place: Place) -> str:
    return ".".join(map(str, place))


def faults(error: Exception, name: Callable[[Place], str] = _dotted) -> str:
    """Place, as `name` has it, and message of every fault of a ValidationError, without the values; other errors say it
    themselves."""
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(
        f"{name(fault['loc'])}: {fault['msg']}" if fault["loc"] else fault["msg"] for fault in error.errors()
    )
