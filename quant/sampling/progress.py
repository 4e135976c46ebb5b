"""Where progress is told."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with a stage, what of it is done, how much there is, and, where there is more to say, a note. What it
    raises ends the work."""

    def __call__(self, stage: str, done: int, total: int, note: str = "", /) -> None: ...


def silent(*_: object) -> None:
    """Reports nothing."""
