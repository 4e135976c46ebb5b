"""Tables in place of the time path, for a fixed schedule and nothing beside the timestep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from quant.errors import CheckpointError, RecipeMismatch
from quant.layers.calls import Clock, timestep
from quant.layers.moved import Moved
from quant.layers.time_path.path import TimePath, in_float32, looked_up
from quant.layers.time_path.schedule import Schedule


class PrecalculatedProjection(Moved):
    """The outputs of a projection of the time path, one row per timestep of a schedule: buffer `table`, float32
    [T, C]."""

    table: Tensor

    def __init__(self, timesteps: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(timesteps, channels))
        self.schedule: Schedule | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[B, C] in the dtype of `x` [B, any], whose values play no part."""
        current = 0 if self.schedule is None else self.schedule.current
        return looked_up(self.table[:, None], current, x)

    def check(self) -> None:
        """Raises CheckpointError where the table makes no sense."""
        if self.schedule is not None and len(self.table) != len(self.schedule):
            raise CheckpointError(f"a table of {len(self.table)} rows for {len(self.schedule)} timesteps")
        if not bool(self.table.isfinite().all()):
            raise CheckpointError("the table of a precalculated projection must be finite")

    def extra_repr(self) -> str:
        return f"timesteps={self.table.shape[0]}, channels={self.table.shape[1]}"


class PrecalculatedEmbedding(nn.Module):
    """Stands in for an embedder that nobody reads any more."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule: Schedule | None = None

    def forward(self, sample: Tensor, *_: Any) -> Tensor:
        """Zeros [B, 1] in the dtype of `sample` [B, C]."""
        return sample.new_zeros(len(sample), 1)


def refuse_untimed(path: TimePath) -> None:
    """Raises RecipeMismatch where the time path depends on more than the timestep."""
    if path.request:
        names = ", ".join(path.request)
        raise RecipeMismatch(f"{names}: the time path depends on more than the timestep; use time_path per_request")


def precalculate(denoiser: nn.Module, path: TimePath, timesteps: Sequence[float], clock: Clock = timestep) -> Schedule:
    """Replaces the time path of a floating-point denoiser by tables for `timesteps`, in place, computed in float32 with
    its own layers, and selects their rows before every call.

    Raises RecipeMismatch where the time path depends on more than the timestep, is quantized or replaced already."""
    refuse_untimed(path)
    path.refuse_touched(denoiser)
    schedule = Schedule(timesteps)
    with torch.no_grad(), in_float32(path.modules(denoiser)):
        device = next(denoiser.get_submodule(path.projections[0]).parameters()).device
        # One by one: a product of many rows sums in another order than that of the single row of an evaluation.
        rows = [path.rows(denoiser, torch.tensor([time], device=device), {}) for time in schedule.timesteps]
    for name in path.projections:
        projection = PrecalculatedProjection(len(schedule), rows[0][name].shape[1])
        projection.table = torch.cat([row[name] for row in rows])
        denoiser.set_submodule(name, projection)
    _rest(denoiser, path)
    return connect(denoiser, schedule, clock)


def lay_out_tables(denoiser: nn.Module, path: TimePath, timesteps: Sequence[float]) -> None:
    """Puts empty tables in place of the time path: what `precalculate` leaves, before its tensors are read. Raises what
    that raises."""
    refuse_untimed(path)
    rows = len(Schedule(timesteps))
    for name in path.projections:
        layer: Any = denoiser.get_submodule(name)
        denoiser.set_submodule(name, PrecalculatedProjection(rows, layer.out_features))
    _rest(denoiser, path)


def connect(denoiser: nn.Module, schedule: Schedule, clock: Clock = timestep) -> Schedule:
    """Has tables that are filled follow the schedule."""
    for module in denoiser.modules():
        if isinstance(module, PrecalculatedProjection | PrecalculatedEmbedding):
            module.schedule = schedule
    schedule.follow(denoiser, clock)
    return schedule


def projections(denoiser: nn.Module) -> dict[str, PrecalculatedProjection]:
    """The precalculated projections by their full name."""
    return {name: module for name, module in denoiser.named_modules() if isinstance(module, PrecalculatedProjection)}


def _rest(denoiser: nn.Module, path: TimePath) -> None:
    for name in path.embedders:
        denoiser.set_submodule(name, PrecalculatedEmbedding())
