"""What pydantic found wrong, in one line for users."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from contract.patterns import MEANINGS

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
    found = [(name(fault["loc"]) if fault["loc"] else "", sentence(fault)) for fault in error.errors()]
    return "; ".join(f"{place}: {message}" if place else message for place, message in found)


def sentence(fault: Mapping[str, Any]) -> str:
    """What one fault (an item of `errors()`) means, in our words: no pattern, and nothing of what was sent."""
    context = fault.get("ctx", {})
    if fault["type"] == "string_pattern_mismatch":
        return MEANINGS.get(context["pattern"], "is not written as it must be")
    if fault["type"] in ("too_short", "too_long"):
        return _number_of_items(fault["type"], context)
    if fault["type"] in _WORDS:
        return _WORDS[fault["type"]].format(**context)
    return _SHOULD.sub(r"must \1", fault["msg"].removeprefix("Value error, "))


def _number_of_items(kind: str, context: Mapping[str, Any]) -> str:
    """pydantic counts what there is only as far as it has looked."""
    if kind == "too_short":
        least = context["min_length"]
        return "must name at least one" if least == 1 else f"must have at least {least} items"
    return f"must have at most {context['max_length']} items"


_WHOLE, _NUMBER, _TEXT, _CHOICE = (
    "must be a whole number",
    "must be a number",
    "must be a text",
    "must be true or false",
)
_LIST, _OBJECT = "must be a list", "must be an object with named fields"
_SHOULD = re.compile(r"^(?:Input|String|List|Value|Number|Dictionary|Set|Tuple) should (be|have)")
_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "there is no such field",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "finite_number": "must be a finite number",
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "int_parsing_size": "has too many digits",
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "bool_type": _CHOICE,
    "bool_parsing": _CHOICE,
    "string_type": _TEXT,
    "string_unicode": "must be a text of valid characters",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "union_tag_invalid": "must be of one of these kinds: {expected_tags}",
    "union_tag_not_found": "says no kind",
    "list_type": _LIST,
    "tuple_type": _LIST,
    "dict_type": _OBJECT,
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
}
