"""What pydantic found wrong, in one line for users."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import ValidationError

from contract.identifier import IDENTIFIER_PATTERN, IDENTIFIER_RULE

Place = tuple[int | str, ...]


def _dotted(place: Place) -> str:
    return ".".join(map(str, place))


def faults(error: Exception, name: Callable[[Place], str] = _dotted) -> str:
    """Place, as `name` has it, and message of every fault of a ValidationError, without the values; other errors say it
    themselves."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if not isinstance(error, ValidationError):
        return str(error)
    found = [(name(fault["loc"]) if fault["loc"] else "", sentence(fault["msg"])) for fault in error.errors()]
    return "; ".join(f"{place}: {message}" if place else message for place, message in found)


def sentence(message: str) -> str:
    """A message of pydantic without its kind, and with what a pattern means instead of the pattern."""
    return _PATTERNS.get(message, message).removeprefix("Value error, ")


_PATTERNS = {f"String should match pattern '{IDENTIFIER_PATTERN}'": f"a name has {IDENTIFIER_RULE}"}
