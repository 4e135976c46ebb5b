"""Fake quantization with gradients to the values and to the step: what training has in place of integers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quant.engine.native import library
from quant.tensor.affine import to_codes


def fake_quantize(x: Tensor, scale: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """`clip(round(x / scale), low, high) * scale`, by rows: x [R, ...] with scale, low and high float32 [R]; rounds
    half to even. A scale of 0 leaves its row as it is.

    The gradient to `x` is 1 inside the range and 0 outside; to `scale` it is round(v) - v inside, for v = x / scale,
    and the end of the range outside (LSQ, arXiv 1902.08153, equation 3)."""
    return _FakeQuantize.apply(x, scale, low, high)  # type: ignore[no-any-return, no-untyped-call]


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: Tensor, high: Tensor) -> Tensor:
        x, ends = _dense(x), (low.contiguous(), high.contiguous())
        ctx.save_for_backward(x, scale, *ends)
        return _forward(x, scale.detach().contiguous(), *ends)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, scale, low, high = ctx.saved_tensors
        to_x, to_scale = _backward(gradient, x, scale.contiguous(), low, high)
        return to_x, to_scale, None, None


def _forward(x: Tensor, scale: Tensor, low: Tensor, high: Tensor) -> Tensor:
    if _native(x):
        return torch.ops.facsimile.fake_quantize(x, scale, low, high)  # type: ignore[no-any-return]
    step, inverse, bottom, top = (_by_row(t, x) for t in (scale, _inverse(scale), low, high))
    codes = to_codes(x.float() * inverse, bottom, top)
    return torch.where(step == 0, x.float(), codes * step).to(x.dtype)


def _backward(gradient: Tensor, x: Tensor, scale: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    if _native(x) and gradient.dtype == x.dtype:
        laid = torch.empty_like(x).copy_(gradient) if gradient.stride() != x.stride() else gradient
        return torch.ops.facsimile.fake_quantize_backward(laid, x, scale, low, high)  # type: ignore[no-any-return]
    step, inverse, bottom, top = (_by_row(t, x) for t in (scale, _inverse(scale), low, high))
    scaled = x.float() * inverse
    inside = ((scaled >= bottom) & (scaled <= top)) | (step == 0)
    codes = to_codes(scaled.clone(), bottom, top)
    slope = torch.where(inside, codes - scaled, codes) * (step != 0)
    return torch.where(inside, gradient, 0), (gradient.float() * slope).flatten(1).sum(dim=1)


def _inverse(scale: Tensor) -> Tensor:
    """As the integer kernels take it: divided in double precision, rounded once; 0 for 0."""
    return torch.where(scale == 0, 0.0, 1.0 / scale.double()).float()


def _by_row(values: Tensor, x: Tensor) -> Tensor:
    return values.view(-1, *[1] * (x.ndim - 1))


def _dense(x: Tensor) -> Tensor:
    """The values with one row after the other and no gaps, channels-last or not."""
    in_rows = x.ndim < 2 or x.shape[0] <= 1 or x.stride(0) * x.shape[0] == x.numel()
    return x if torch.ops.aten.is_non_overlapping_and_dense(x) and in_rows else x.contiguous()


def _native(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16) and library.available()
