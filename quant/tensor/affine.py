"""The grid of all quantization here: `value = (code - zero_point) * scale`, codes being integers that floats hold."""

from __future__ import annotations

import numpy as np
from torch import Tensor

SMALLEST_SCALE = 1e-8
"""The step of a grid over a range of no width."""


def grid(low: float, high: float, bits: int) -> tuple[float, int]:
    """Scale, rounded to float32, and zero point of codes 0 to 2^bits - 1 that reach from `low` to `high`, widened to
    contain zero, which is then exact.

    >>> grid(-1.0, 2.0, 2)
    (1.0, 1)
    """
    low, high, top = min(low, 0.0), max(high, 0.0), unsigned_top(bits)
    scale = float(np.float32(max((high - low) / top, SMALLEST_SCALE)))
    return scale, min(max(round(-low / scale), 0), top)


def unsigned_top(bits: int) -> int:
    """The largest code of `bits` bits where codes begin at 0."""
    return int(2**bits - 1)


def signed_top(bits: int) -> int:
    """The largest code of `bits` bits of a symmetric grid, whose codes reach from minus this one to it.

    >>> signed_top(4)
    7
    """
    return int(2 ** (bits - 1) - 1)


def to_codes(steps: Tensor, low: Tensor | float, high: Tensor | float, zero_point: int = 0) -> Tensor:
    """Codes, still floats, of values in steps of the grid (`value / scale`), in place: rounded half to even, moved by
    the zero point, clipped to [low, high]."""
    rounded = steps.round_()
    if zero_point:
        rounded = rounded.add_(zero_point)
    return rounded.clamp_(low, high)  # type: ignore[arg-type]


def from_codes(codes: Tensor, scale: float, zero_point: int = 0) -> Tensor:
    """The values that codes, floats, stand for, in place."""
    return codes.sub_(zero_point).mul_(scale)
