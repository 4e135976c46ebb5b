"""Where a kernel is launched, and on how many multiprocessors it can spread."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch import Tensor


def on_device_of(x: Tensor) -> AbstractContextManager[object]:
    """Makes the GPU that holds `x` the current one, which Triton launches on; does nothing in the interpreter."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


@cache
def multiprocessors(device: torch.device) -> int:
    """How many multiprocessors a GPU has; 1 for the interpreter."""
    return int(torch.cuda.get_device_properties(device).multi_processor_count) if device.type == "cuda" else 1


def power_of_two(number: int) -> int:
    """The smallest power of two that is not below `number`."""
    return 1 << max(number - 1, 0).bit_length()


def ceil_div(number: int, divisor: int) -> int:
    """How many blocks of `divisor` cover `number`."""
    return -(-number // divisor)
