"""Tables in place of the time path, for a fixed schedule and no other conditioning."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from quant.errors import CheckpointError
from quant.layers.moved import Moved
from quant.layers.time_path.embedding import activated, blocks, embed, looked_up, refuse_conditioning
from quant.layers.time_path.schedule import Schedule


class PrecalculatedProjection(Moved):
    """The outputs of a block's `time_emb_proj`, one row per timestep of a schedule: buffer `table`, float32 [T, C]."""

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
    """Stands in for a `time_embedding` that nobody reads any more."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule: Schedule | None = None

    def forward(self, sample: Tensor, condition: Tensor | None = None) -> Tensor:
        """Zeros [B, 1] in the dtype of `sample` [B, C]."""
        return sample.new_zeros(len(sample), 1)


def precalculate(denoiser: nn.Module, timesteps: Sequence[float]) -> Schedule:
    """Replaces the time path of a floating-point UNet by tables for `timesteps`, in place, computed in float32 with its
    own layers, and selects their rows before every call.

    Raises RecipeMismatch where the time path depends on more than the timestep, is quantized or replaced already."""
    refuse_conditioning(denoiser)
    schedule, path = Schedule(timesteps), copy.deepcopy(denoiser.time_embedding).float()  # type: ignore[operator]
    with torch.no_grad():
        # One by one: a product of many rows sums in another order than that of the single row of an evaluation.
        embeddings = [embed(denoiser, path, (timestep,), {})[0] for timestep in schedule.timesteps]
        for block in blocks(denoiser):
            layer = copy.deepcopy(block.time_emb_proj).float()
            projection = PrecalculatedProjection(len(schedule), layer.out_features)
            projection.table = torch.cat([layer(activated(block, embedding)) for embedding in embeddings])
            block.time_emb_proj = projection
    denoiser.time_embedding = PrecalculatedEmbedding()
    return connect(denoiser, schedule)


def lay_out_tables(denoiser: nn.Module, timesteps: Sequence[float]) -> None:
    """Puts empty tables in place of the time path: what `precalculate` leaves, before its tensors are read. Raises what
    that raises."""
    refuse_conditioning(denoiser)
    rows = len(Schedule(timesteps))
    for block in blocks(denoiser):
        block.time_emb_proj = PrecalculatedProjection(rows, block.time_emb_proj.out_features)
    denoiser.time_embedding = PrecalculatedEmbedding()


def connect(denoiser: nn.Module, schedule: Schedule) -> Schedule:
    """Has tables that are filled follow the schedule."""
    for projection in projections(denoiser).values():
        projection.schedule = schedule
    denoiser.time_embedding.schedule = schedule  # type: ignore[union-attr]
    schedule.follow(denoiser)
    return schedule


def projections(denoiser: nn.Module) -> dict[str, PrecalculatedProjection]:
    """The precalculated projections by their full name."""
    return {name: module for name, module in denoiser.named_modules() if isinstance(module, PrecalculatedProjection)}
