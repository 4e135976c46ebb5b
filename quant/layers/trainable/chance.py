"""Random choices of elements, as QDrop makes them by the million."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_DRAWN_TOGETHER = 4
_LEVELS = 2**16


def chosen(shape: Sequence[int], share: float, generator: torch.Generator | None = None) -> Tensor:
    """Bool of a shape, each element true with probability `share`, above 0 and at most 1, to 1 / 65,536.

    One 64-bit number is drawn for four elements: on a CPU random numbers are drawn one after the other, and a float for
    every element takes three times as long."""
    count = torch.Size(shape).numel()
    drawn = torch.empty(-(-count // _DRAWN_TOGETHER), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    last = max(round(share * _LEVELS), 1) - 1 - _LEVELS // 2
    return (drawn.view(torch.int16)[:count] <= last).view(*shape)
