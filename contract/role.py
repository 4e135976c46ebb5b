"""What an API key may be used for."""

from __future__ import annotations

from enum import IntEnum


class Role(IntEnum):
    """What a key may do; each role may do what those before it may."""

    USER = 1
    """Draw and compare."""
    CALIBRATOR = 2
    """Also make and evaluate variants."""
    ADMIN = 3
