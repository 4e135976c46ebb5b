"""The arithmetic in which calibration runs denoisers."""

from __future__ import annotations

import torch

from quant.engine import native


def autocast() -> torch.autocast:
    """A context in which products are in bfloat16 where the processor has tiles for them (AMX), else in float32, which
    then takes half the time."""
    return torch.autocast("cpu", torch.bfloat16, enabled=native.has_tiles())
