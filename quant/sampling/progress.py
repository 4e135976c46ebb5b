"""Where progress is told."""

from __future__ import annotations


def silent(*_: object) -> None:
    """Reports nothing."""
