"""Affine per-tensor quantization of activations to unsigned integers, by parameters that may differ over timesteps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quant.errors import CheckpointError
from quant.tensor.affine import from_codes, grid, to_codes, unsigned_top

FLOAT_BITS = 16
"""Bits of an activation that is not quantized at some timesteps: the layer then multiplies floats."""

_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class ActivationParameters:
    """`x` is near `(code - zero_point) * scale`, with codes uint8 in [0, 2^bits - 1]; `bits` 2 to 8, or FLOAT_BITS."""

    scale: float
    zero_point: int
    bits: int = 8

    @staticmethod
    def from_range(low: float, high: float, bits: int = 8) -> ActivationParameters:
        """The parameters whose codes reach from `low` to `high`, widened to contain zero, which is then exact."""
        return ActivationParameters(*grid(low, high, bits), bits)

    @property
    def top(self) -> int:
        """The largest code."""
        return unsigned_top(self.bits)

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest value that a code stands for."""
        return -self.zero_point * self.scale, (self.top - self.zero_point) * self.scale

    @property
    def is_float(self) -> bool:
        """Whether nothing is quantized."""
        return self.bits == FLOAT_BITS

    def check(self) -> None:
        """Raises CheckpointError where the values make no sense."""
        if not 2 <= self.bits <= 8 and not self.is_float:
            raise CheckpointError(f"input_bits {self.bits} must be 2 to 8, or {FLOAT_BITS} for floats")
        if not _TINY <= self.scale < float("inf"):
            raise CheckpointError(f"input_scale {self.scale} must be positive, normal and finite")
        if not 0 <= self.zero_point <= (255 if self.is_float else self.top):
            raise CheckpointError(f"input_zero_point {self.zero_point} does not fit {self.bits} bits")

    def quantize(self, x: Tensor) -> Tensor:
        """Codes uint8 of `x`, same shape and memory format: round half to even, clipped to the range. NaN becomes the
        zero point, so the value zero; infinities become the ends of the range."""
        steps = (x.float() * (1.0 / self.scale)).nan_to_num_(nan=0.0)
        return to_codes(steps, 0, self.top, self.zero_point).to(torch.uint8)

    def dequantize(self, codes: Tensor) -> Tensor:
        """Float32 values of uint8 codes."""
        return from_codes(codes.to(torch.float32, copy=True), self.scale, self.zero_point)


@dataclass(frozen=True)
class ActivationTable:
    """Parameters of one input for every group of timesteps; one row stands for all groups."""

    rows: tuple[ActivationParameters, ...]

    @staticmethod
    def read(scale: Tensor, zero_point: Tensor, bits: Tensor) -> ActivationTable:
        """From tensors [T]. Raises CheckpointError where a row makes no sense."""
        if not len(scale) == len(zero_point) == len(bits):
            raise CheckpointError(f"{len(scale)} scales, {len(zero_point)} zero points and {len(bits)} bit-widths")
        table = ActivationTable(
            tuple(map(ActivationParameters, scale.tolist(), zero_point.tolist(), bits.tolist()))  # one read each
        )
        for group, row in enumerate(table.rows):
            try:
                row.check()
            except CheckpointError as error:
                raise CheckpointError(f"row {group} of {len(table.rows)}: {error}") from error
        return table

    def write(self) -> tuple[Tensor, Tensor, Tensor]:
        """Scales float32, zero points int32 and bit-widths uint8, each [T]."""
        return (
            torch.tensor([row.scale for row in self.rows], dtype=torch.float32),
            torch.tensor([row.zero_point for row in self.rows], dtype=torch.int32),
            torch.tensor([row.bits for row in self.rows], dtype=torch.uint8),
        )

    def at(self, group: int) -> ActivationParameters:
        """The parameters of one group of timesteps."""
        return self.rows[group if len(self.rows) > 1 else 0]
