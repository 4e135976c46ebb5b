"""The quantizer of a layer's input, by tables over the steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quant.layers.timesteps import SampleGroups
from quant.layers.trainable.chance import chosen
from quant.layers.trainable.fake_quantize import fake_quantize
from quant.quantizers.activation import FLOAT_BITS, ActivationParameters, ActivationTable


class InputQuantizer(nn.Module):
    """The input's table, one row per group of timesteps: `scale` float32 [T], which learns in log space as
    `scale * exp(log_change)`, `zero_point` int32 [T] and `bits` uint8 [T].

    Layers that read the same tensor share one. `enabled` is off until ranges are set; with `drop` above 0 each value
    stays in floating point with that probability (QDrop, arXiv 2203.05740)."""

    def __init__(self, groups: SampleGroups, bits: int) -> None:
        super().__init__()
        self.groups = groups
        rows = len(groups)
        self.register_buffer("scale", torch.ones(rows))
        self.register_buffer("zero_point", torch.zeros(rows, dtype=torch.int32))
        self.register_buffer("bits", torch.full((rows,), bits, dtype=torch.uint8))
        self.log_change = nn.Parameter(torch.zeros(rows), requires_grad=False)
        self.enabled = False
        self.drop = 0.0

    scale: Tensor
    zero_point: Tensor
    bits: Tensor

    def set_range(self, group: int, low: float, high: float) -> None:
        """Makes codes of the group's bits reach from `low` to `high`."""
        bits = int(self.bits[group])
        row = ActivationParameters.from_range(low, high, min(bits, 8))
        self.scale[group], self.zero_point[group], self.log_change.data[group] = row.scale, row.zero_point, 0.0

    def settle(self) -> None:
        """Folds what was learned into the scales."""
        self.scale.mul_(self.log_change.detach().exp())
        self.log_change.data.zero_()

    @property
    def table(self) -> ActivationTable:
        """The table as the integer layers take it."""
        return ActivationTable.read(self.scale * self.log_change.detach().exp(), self.zero_point, self.bits)

    def forward(self, x: Tensor) -> Tensor:
        """The values that the codes of `x` [B, ...] stand for, each sample by the row of its timestep."""
        if not self.enabled:
            return x
        rows = self.groups.rows(x.shape[0])
        scale = (self.scale * self.log_change.exp())[rows]
        zero_point, bits = self.zero_point[rows].float(), self.bits[rows]
        scale = torch.where(bits == FLOAT_BITS, 0.0, scale)
        out = fake_quantize(x, scale, -zero_point, 2.0 ** bits.float() - 1.0 - zero_point)
        if self.drop == 0.0 or not torch.is_grad_enabled():
            return out
        return torch.where(chosen(x.shape, self.drop).to(x.device), x, out)
