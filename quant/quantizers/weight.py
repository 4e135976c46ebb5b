"""Symmetric per-channel quantization of weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quant.errors import QuantError
from quant.observers.mse import ERROR_EXPONENT, SHRINKS
from quant.tensor.affine import signed_top, to_codes

_SMALLEST_SCALE = float(torch.finfo(torch.float32).tiny)


@dataclass(frozen=True)
class QuantizedWeight:
    """Codes int8 [N, ...] in [-2^(bits-1) + 1, 2^(bits-1) - 1] and scales float32 [N]: weight = codes * scale."""

    codes: Tensor
    scale: Tensor

    def dequantize(self) -> Tensor:
        """The weight that the codes stand for, float32 [N, ...]."""
        return self.codes.float() * self.scale.view(-1, *[1] * (self.codes.ndim - 1))


def quantize_weight(weight: Tensor, bits: int, scale: Tensor | None = None) -> QuantizedWeight:
    """Rounds a weight [N, ...] to the nearest of 2^bits - 1 symmetric levels per output channel, `bits` 2 to 8. The
    levels are the multiples of `scale`, float32 [N]; without it, of `minmax_scale`, so that the largest magnitude of a
    channel is the last level. What lies beyond the last level becomes it. An all-zero channel gets codes of zero.

    Raises QuantError when given scales are of another shape, or not positive, normal and finite.

    >>> quantize_weight(torch.tensor([[1.0, -0.5]]), 8).codes
    tensor([[127, -64]], dtype=torch.int8)
    """
    rows = weight.detach().float().flatten(1)
    if scale is None:
        scale = minmax_scale(weight, bits)
    elif scale.shape != rows.shape[:1] or not ((scale >= _SMALLEST_SCALE) & (scale < float("inf"))).all():
        raise QuantError(f"scales of a weight must be {len(rows)} positive, normal and finite numbers")
    scale = scale.detach().float()
    return QuantizedWeight(_codes(rows, scale, bits).to(torch.int8).view(weight.shape), scale)


def minmax_scale(weight: Tensor, bits: int) -> Tensor:
    """Per output channel of a weight [N, ...], the scale whose last level is the largest magnitude: float32 [N]."""
    rows = weight.detach().float().flatten(1)
    return (rows.abs().amax(dim=1) / signed_top(bits)).clamp_min(_SMALLEST_SCALE)


def mse_scale(weight: Tensor, bits: int) -> Tensor:
    """Per output channel of a weight [N, ...], the fraction of `minmax_scale`, of those in SHRINKS, with the least mean
    |w - Q(w)|^2.4, the largest of equals: float32 [N]. The search of Q-Diffusion (arXiv 2302.04304) for weights."""
    rows = weight.detach().float().flatten(1)
    widest = minmax_scale(weight, bits)
    found, best = widest, torch.full_like(widest, float("inf"))
    for shrink in SHRINKS:
        scale = (widest * shrink).clamp_min(_SMALLEST_SCALE)
        error = _codes(rows, scale, bits).mul_(scale[:, None]).sub_(rows)
        # In levels of the widest scale, powers of errors can neither overflow nor underflow.
        mean = error.div_(widest[:, None]).abs_().pow_(ERROR_EXPONENT).mean(dim=1)
        found, best = torch.where(mean < best, scale, found), torch.minimum(mean, best)
    return found


def _codes(rows: Tensor, scale: Tensor, bits: int) -> Tensor:
    return to_codes(rows / scale[:, None], -signed_top(bits), signed_top(bits))
