"""Affine per-tensor quantization of activations to unsigned integers."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

# torch announces the end of its quantized tensors; their conversion is by far the fastest there is on a CPU, and the
# version of torch is pinned.
warnings.filterwarnings("ignore", message="torch.quantize_per_tensor")

_SMALLEST_SCALE = 1e-8


@dataclass(frozen=True)
class ActivationParameters:
    """`x` is near `(code - zero_point) * scale`, with codes uint8 in [0, 255]."""

    scale: float
    zero_point: int

    @staticmethod
    def from_range(low: float, high: float) -> ActivationParameters:
        """The parameters whose codes reach from `low` to `high`, widened to contain zero, which is then exact."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max((high - low) / 255.0, _SMALLEST_SCALE)
        return ActivationParameters(scale, int(min(max(round(-low / scale), 0), 255)))

    def quantize(self, x: Tensor) -> Tensor:
        """Codes uint8 of `x`, same shape and memory format; values beyond the range are clipped."""
        quantized = torch.quantize_per_tensor(x.float(), self.scale, self.zero_point, torch.quint8)
        # A view of the same bytes as plain uint8: int_repr() would copy them.
        return torch.empty(0, dtype=torch.uint8).set_(
            quantized.untyped_storage(), 0, quantized.shape, quantized.stride()
        )

    def dequantize(self, codes: Tensor) -> Tensor:
        """Float32 values of uint8 codes."""
        return (codes.float() - self.zero_point) * self.scale

    def fake_quantize(self, x: Tensor) -> Tensor:
        """The values that the codes of `x` stand for; the gradient passes where `x` is inside the range."""
        low, high = -self.zero_point * self.scale, (255 - self.zero_point) * self.scale
        clipped = x.clamp(low, high)
        return clipped + (self.dequantize(self.quantize(x.detach())) - clipped).detach()
