"""Where progress is told."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with how far a stage is; `note` says what it is at: a unit, a loss."""

    def __call__(self, stage: str, done: int, total: int, note: str = "", /) -> None: ...


def silent(*_: object) -> None:
    """Reports nothing."""
