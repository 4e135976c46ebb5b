"""Fake quantization written out: what tests of integer layers and of gradients compare with."""

from __future__ import annotations

from torch import Tensor

from quant.quantizers.activation import ActivationParameters


def fake_quantized(x: Tensor, grid: ActivationParameters) -> Tensor:
    """The values that the codes of `x` stand for; the gradient passes where `x` is inside the range."""
    low, high = -grid.zero_point * grid.scale, (2**grid.bits - 1 - grid.zero_point) * grid.scale
    clipped = x.clamp(low, high)
    codes = (x.detach().float() * (1.0 / grid.scale)).round() + grid.zero_point
    values = (codes.clamp(0, 2**grid.bits - 1) - grid.zero_point) * grid.scale
    return clipped + (values - clipped).detach()
