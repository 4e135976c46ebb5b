"""The time path brought into the mode that a layout asks for."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from quant.errors import RecipeMismatch
from quant.layers.time_path.embedding import refuse_conditioning, refuse_strange
from quant.layers.time_path.per_request import RequestEmbedding, RequestSchedule, per_request
from quant.layers.time_path.precalculated import PrecalculatedEmbedding, connect, precalculate, projections
from quant.layers.time_path.schedule import Schedule

MODES = ("keep", "precalculate", "per_request")
"""What can be done with the time path."""


def serve(denoiser: nn.Module, mode: str, timesteps: Sequence[float]) -> None:
    """Brings the time path into a mode, in place, from whichever state it is in: floating point, tables that were empty
    and have been filled, or ready. Raises RecipeMismatch where it is ready for something else."""
    if mode == "keep":
        return
    present = getattr(getattr(denoiser, "time_embedding", None), "schedule", None)
    if present is not None:
        same = present.timesteps == Schedule(timesteps).timesteps
        if not same or isinstance(present, RequestSchedule) != (mode == "per_request"):
            raise RecipeMismatch("the time path is ready for another mode or schedule: start from the float model")
    elif mode == "per_request":
        per_request(denoiser, timesteps)
    elif projections(denoiser):
        connect(denoiser, Schedule(timesteps))
    else:
        precalculate(denoiser, timesteps)


def check_mode(denoiser: nn.Module, mode: str) -> None:
    """Raises RecipeMismatch where the time path, if it is in floating point yet, cannot be brought into the mode."""
    replaced = isinstance(getattr(denoiser, "time_embedding", None), PrecalculatedEmbedding | RequestEmbedding)
    if mode == "precalculate" and not replaced:
        refuse_conditioning(denoiser)
    elif mode == "per_request" and not replaced:
        refuse_strange(denoiser)
