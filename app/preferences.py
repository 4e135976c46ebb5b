"""The `Prefer` header (RFC 7240): a list of preferences, each with a value and parameters that may be quoted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_WORD = rf'(?:{_TOKEN}|"(?:[^"\\]|\\.)*")'
_PREFERENCE = re.compile(rf"[ \t]*({_TOKEN})(?:[ \t]*=[ \t]*({_WORD})?)?[ \t]*(?:;.*)?", re.DOTALL)
_ELEMENT = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^,"]|")+', re.DOTALL)
"""What stands between two commas that are in no quoted string; a quote that is never closed counts as a letter."""


_LONGEST = 1_024
"""Characters of a line that are read: a longer one is no preference of anybody."""


def preferences(lines: Iterable[str]) -> dict[str, str]:
    """Value by lower-case name, empty where there is none. The first of two wins; what is malformed is ignored."""
    found: dict[str, str] = {}
    for name, value in _read(lines):
        found.setdefault(name.lower(), value)
    return found


def _read(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        if len(line) > _LONGEST:
            continue
        for element in _ELEMENT.findall(line):
            match = _PREFERENCE.fullmatch(element)
            if match:
                yield match[1], _unquoted(match[2] or "")


def _unquoted(word: str) -> str:
    return re.sub(r"\\(.)", r"\1", word[1:-1], flags=re.DOTALL) if word.startswith('"') else word
