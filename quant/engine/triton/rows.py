"""Passes over rows of tokens that end in codes."""

# A kernel's arguments have the types of each launch.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import torch
import triton
import triton.language as tl
from torch import Tensor

from quant.engine.triton.launch import ceil_div, on_device_of, power_of_two
from quant.engine.triton.rounding import encode, encode_symmetric
from quant.quantizers.activation import ActivationParameters

_BLOCK = 2048
_TILE = 4096


def quantize(x: Tensor, to: ActivationParameters) -> Tensor:
    """Codes uint8 of a contiguous tensor."""
    codes = torch.empty_like(x, dtype=torch.uint8)
    if x.numel():
        with on_device_of(x):
            quantize_kernel[(ceil_div(x.numel(), _BLOCK),)](x, codes, x.numel(), *_target(to), BLOCK=_BLOCK)
    return codes


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, to: ActivationParameters) -> Tensor:
    """Codes uint8 of contiguous tokens [..., C], normalized."""
    codes = torch.empty_like(x, dtype=torch.uint8)
    width = x.shape[-1]
    count = x.numel() // width
    block = power_of_two(width)
    rows = min(max(_TILE // block, 1), power_of_two(count))
    if count:
        with on_device_of(x):
            layer_norm_kernel[(ceil_div(count, rows),)](
                x, weight, bias, codes, count, width, eps, *_target(to), ROWS=rows, BLOCK=block
            )
    return codes


def geglu(x: Tensor, to: ActivationParameters) -> Tensor:
    """Codes uint8 [..., C] of contiguous tokens [..., 2 C]."""
    width = x.shape[-1] // 2
    codes = torch.empty((*x.shape[:-1], width), dtype=torch.uint8, device=x.device)
    block = min(_BLOCK, power_of_two(width))
    if codes.numel():
        with on_device_of(x):
            geglu_kernel[(codes.numel() // width, ceil_div(width, block))](x, codes, width, *_target(to), BLOCK=block)
    return codes


def quantize_per_token(x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes int8 of contiguous tokens [..., C] and their scales float32 [...]."""
    codes = torch.empty_like(x, dtype=torch.int8)
    scale = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    if x.numel():
        with on_device_of(x):
            per_token_kernel[(scale.numel(),)](x, codes, scale, x.shape[-1], BLOCK=power_of_two(x.shape[-1]))
    return codes, scale


def _target(to: ActivationParameters) -> tuple[float, float, float]:
    return 1.0 / to.scale, float(to.zero_point), float(to.top)


@triton.jit
def quantize_kernel(x, codes, count, inverse, zero_point, top, BLOCK: tl.constexpr):
    """Codes of a run of values."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(x + at, mask=at < count, other=0.0).to(tl.float32)
    tl.store(codes + at, encode(values, inverse, zero_point, top), mask=at < count)


@triton.jit(do_not_specialize=["count"])
def layer_norm_kernel(
    x, weight, bias, codes, count, width, eps, inverse, zero_point, top, ROWS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Codes of ROWS normalized rows; the variance is of the differences from the mean."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    valid = (row < count)[:, None] & (column < width)[None, :]
    at = row.to(tl.int64)[:, None] * width + column[None, :]
    values = tl.load(x + at, mask=valid, other=0.0).to(tl.float32)
    mean = tl.sum(values, axis=1) / width
    centred = tl.where(valid, values - mean[:, None], 0.0)
    inverse_deviation = tl.rsqrt(tl.sum(centred * centred, axis=1) / width + eps)
    gain = tl.load(weight + column, mask=column < width, other=0.0).to(tl.float32)
    y = centred * inverse_deviation[:, None] * gain[None, :]
    if bias is not None:
        y += tl.load(bias + column, mask=column < width, other=0.0).to(tl.float32)[None, :]
    tl.store(codes + at, encode(y, inverse, zero_point, top), mask=valid)


@triton.jit
def geglu_kernel(x, codes, width, inverse, zero_point, top, BLOCK: tl.constexpr):
    """Codes of a part of a row: the first half times the GELU of the second, by the error function."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + row * (2 * width) + column, mask=column < width, other=0.0).to(tl.float32)
    gate = tl.load(x + row * (2 * width) + width + column, mask=column < width, other=0.0).to(tl.float32)
    y = value * (0.5 * gate * (1.0 + tl.erf(gate * 0.7071067811865476)))
    tl.store(codes + row * width + column, encode(y, inverse, zero_point, top), mask=column < width)


@triton.jit
def per_token_kernel(x, codes, scale, width, BLOCK: tl.constexpr):
    """Symmetric codes of one row; what is not finite does not count for the scale."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    values = tl.load(x + row * width + column, mask=column < width, other=0.0).to(tl.float32)
    size = tl.abs(values)
    largest = tl.max(tl.where(size < float("inf"), size, 0.0), axis=0)
    step = tl.maximum(largest / 127.0, 1e-8)
    tl.store(scale + row, step)
    tl.store(codes + row * width + column, encode_symmetric(values, 1.0 / step, 127.0), mask=column < width)
