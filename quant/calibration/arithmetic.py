"""The arithmetic in which calibration runs denoisers."""

from __future__ import annotations

import torch

from quant.kernels import native


def autocast() -> torch.autocast:
    """A context in which products are in bfloat16 where the processor has tiles for them (AMX), else in float32: without
    tiles bfloat16 takes twice the time of float32, and a calibration gains nothing from it."""
    return torch.autocast("cpu", torch.bfloat16, enabled=native.has_tiles())
