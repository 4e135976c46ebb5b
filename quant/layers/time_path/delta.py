"""What training adds to the rows of a time path that is looked up once a request: a bias for every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quant.errors import CheckpointError
from quant.layers.moved import Moved
from quant.layers.time_path.path import TimePath


class Delta(Moved):
    """Added to the outputs of a projection, one row per timestep of the schedule: buffer `table`, float32 [T, C]."""

    table: Tensor

    def __init__(self, timesteps: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(timesteps, channels))

    def check(self) -> None:
        """Raises CheckpointError where the table makes no sense."""
        if not bool(self.table.isfinite().all()):
            raise CheckpointError("what is added to a projection must be finite")


def add_deltas(denoiser: nn.Module, path: TimePath, timesteps: int) -> None:
    """Gives every projection of a time path rows that change nothing yet, in place."""
    for name in path.projections:
        layer: Any = denoiser.get_submodule(name)
        layer.delta = Delta(timesteps, layer.out_features)


def deltas(denoiser: nn.Module) -> dict[str, Delta]:
    """All of them by their full name."""
    return {name: module for name, module in denoiser.named_modules() if isinstance(module, Delta)}
