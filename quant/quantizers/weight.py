"""Symmetric per-channel quantization of weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_SMALLEST_SCALE = float(torch.finfo(torch.float32).tiny)


@dataclass(frozen=True)
class QuantizedWeight:
    """Codes int8 [N, ...] in [-2^(bits-1) + 1, 2^(bits-1) - 1] and scales float32 [N]: weight = codes * scale."""

    codes: Tensor
    scale: Tensor

    def dequantize(self) -> Tensor:
        """The weight that the codes stand for, float32 [N, ...]."""
        return self.codes.float() * self.scale.view(-1, *[1] * (self.codes.ndim - 1))


def quantize_weight(weight: Tensor, bits: int) -> QuantizedWeight:
    """Rounds a weight [N, ...] to the nearest of 2^bits - 1 symmetric levels per output channel; the largest magnitude
    of a channel is the last level. An all-zero channel gets codes of zero.

    >>> quantize_weight(torch.tensor([[1.0, -0.5]]), 8).codes
    tensor([[127, -64]], dtype=torch.int8)
    """
    top = 2 ** (bits - 1) - 1
    rows = weight.detach().float().flatten(1)
    scale = (rows.abs().amax(dim=1) / top).clamp_min(_SMALLEST_SCALE)
    codes = (rows / scale[:, None]).round_().clamp_(-top, top).to(torch.int8)
    return QuantizedWeight(codes.view(weight.shape), scale)
