"""The time path brought into the mode that a layout asks for."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from quant.errors import RecipeMismatch
from quant.layers.calls import Clock
from quant.layers.time_path.path import TimePath
from quant.layers.time_path.per_request import Projection, per_request
from quant.layers.time_path.precalculated import PrecalculatedProjection, connect, precalculate
from quant.layers.time_path.schedule import Schedule

MODES = ("keep", "precalculate", "per_request")
"""What can be done with the time path."""


def is_replaced(denoiser: nn.Module, path: TimePath) -> bool:
    """Whether the projections are looked up already, or have tables that are to be filled."""
    kinds = (PrecalculatedProjection, Projection)
    return any(isinstance(denoiser.get_submodule(name), kinds) for name in path.projections)


def serve(denoiser: nn.Module, path: TimePath, mode: str, timesteps: Sequence[float], clock: Clock) -> None:
    """Brings the time path into a mode other than `keep`, in place, from whichever state it is in: floating point,
    tables that were empty and have been filled, or ready. Raises RecipeMismatch where it is ready for something
    else."""
    first = denoiser.get_submodule(path.projections[0])
    present = getattr(first, "schedule", None)
    if present is not None:
        same = present.timesteps == Schedule(timesteps).timesteps
        if not same or isinstance(first, Projection) != (mode == "per_request"):
            raise RecipeMismatch("the time path is ready for another mode or schedule: start from the float model")
    elif mode == "per_request":
        per_request(denoiser, path, timesteps, clock)
    elif is_replaced(denoiser, path):
        connect(denoiser, Schedule(timesteps), clock)
    else:
        precalculate(denoiser, path, timesteps, clock)
