"""Passes over pictures that end in framed codes."""

# A kernel's arguments have the types of each launch.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from quant.engine.triton.launch import ceil_div, on_device_of, power_of_two
from quant.engine.triton.rounding import encode
from quant.quantizers.activation import ActivationParameters

_PIXELS, _CHANNELS, _CHUNKS = 64, 64, 64


@dataclass(frozen=True)
class Affine:
    """What a normalization comes to: x * factor + addend, float32 [B, C] each."""

    factor: Tensor
    addend: Tensor


def quantize(
    x: Tensor, to: ActivationParameters, frame: tuple[int, int], affine: Affine | None = None, silu: bool = False
) -> Tensor:
    """Codes uint8 [B, C, H + 2 frame, W + 2 frame], channels-last, of a picture with any strides, first put through
    `affine` and SiLU."""
    batch, channels, height, width = x.shape
    shape = (batch, channels, height + 2 * frame[0], width + 2 * frame[1])
    codes = torch.empty(shape, dtype=torch.uint8, device=x.device, memory_format=torch.channels_last)
    if codes.numel():
        block = min(_CHANNELS, power_of_two(channels))
        with on_device_of(x):
            quantize_kernel[(ceil_div(shape[2] * shape[3], _PIXELS), ceil_div(channels, block), batch)](
                x, codes, None if affine is None else affine.factor, None if affine is None else affine.addend,
                1.0 / to.scale, float(to.zero_point), float(to.top), *x.stride(), channels, height, width, *frame,
                SILU=silu, PIXELS=_PIXELS, CHANNELS=block,
            )  # fmt: skip
    return codes


def group_norm(x: Tensor, norm: nn.GroupNorm, shift: Tensor | None) -> Affine:
    """What the normalization of `x` + `shift` [B, C] does to `x`.

    Moments are taken per channel and chunk of pixels and then put together (Chan et al. 1979): no difference of large
    sums, and loads in the order of memory."""
    batch, channels, height, width = x.shape
    chunks = ceil_div(height * width, _PIXELS)
    means, squares = torch.empty((2, batch, chunks, channels), dtype=torch.float32, device=x.device)
    affine = Affine(*torch.empty((2, batch, channels), dtype=torch.float32, device=x.device))
    if x.numel():
        block = min(_CHANNELS, power_of_two(channels))
        shift = None if shift is None else shift.contiguous()
        with on_device_of(x):
            moments_kernel[(chunks, ceil_div(channels, block), batch)](
                x, means, squares, *x.stride(), channels, height * width, width, PIXELS=_PIXELS, CHANNELS=block
            )
            per_group = channels // norm.num_groups
            affine_kernel[(norm.num_groups, batch)](
                means, squares, shift, norm.weight, norm.bias, affine.factor, affine.addend, chunks, channels,
                per_group, height * width, norm.eps, PIXELS=_PIXELS, CHUNKS=_CHUNKS, CHANNELS=power_of_two(per_group),
            )  # fmt: skip
    return affine


@triton.jit(do_not_specialize=["height", "width"])
def quantize_kernel(
    x, codes, factor, addend, inverse, zero_point, top, batch_step, channel_step, line_step, column_step,
    channels, height, width, frame_lines, frame_columns,
    SILU: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Codes of a block of pixels and channels of the framed picture."""
    picture = tl.program_id(2).to(tl.int64)
    place = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    wide = width + 2 * frame_columns
    high = height + 2 * frame_lines
    line = place // wide - frame_lines
    column = place % wide - frame_columns
    inside = (line >= 0) & (line < height) & (column >= 0) & (column < width)
    known = (channel < channels)[None, :]
    pixel = picture * batch_step + line.to(tl.int64) * line_step + column.to(tl.int64) * column_step
    at = pixel[:, None] + channel.to(tl.int64)[None, :] * channel_step
    y = tl.load(x + at, mask=inside[:, None] & known, other=0.0).to(tl.float32)
    if factor is not None:
        y = y * tl.load(factor + picture * channels + channel, mask=channel < channels, other=0.0)[None, :]
        y += tl.load(addend + picture * channels + channel, mask=channel < channels, other=0.0)[None, :]
    if SILU:
        y = y / (1.0 + tl.exp(-y))
    y = tl.where(inside[:, None], y, 0.0)  # the zero point stands for 0
    to = (picture * high * wide + place)[:, None] * channels + channel[None, :]
    tl.store(codes + to, encode(y, inverse, zero_point, top), mask=(place < high * wide)[:, None] & known)


@triton.jit(do_not_specialize=["pixels", "width"])
def moments_kernel(
    x, means, squares, batch_step, channel_step, line_step, column_step, channels, pixels, width,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Of one chunk of pixels, for every channel: the mean, and the sum of squared differences from it."""
    picture = tl.program_id(2).to(tl.int64)
    place = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = channel < channels
    valid = (place < pixels)[:, None] & known[None, :]
    line = (place // width).to(tl.int64)
    column = (place % width).to(tl.int64)
    pixel = picture * batch_step + line * line_step + column * column_step
    at = pixel[:, None] + channel.to(tl.int64)[None, :] * channel_step
    values = tl.load(x + at, mask=valid, other=0.0).to(tl.float32)
    count = tl.minimum(pixels - tl.program_id(0) * PIXELS, PIXELS)
    mean = tl.sum(values, axis=0) / count
    centred = tl.where(valid, values - mean[None, :], 0.0)
    to = (picture * tl.num_programs(0) + tl.program_id(0)) * channels + channel
    tl.store(means + to, mean, mask=known)
    tl.store(squares + to, tl.sum(centred * centred, axis=0), mask=known)


@triton.jit(do_not_specialize=["chunks", "pixels"])
def affine_kernel(
    means, squares, shift, weight, bias, factor, addend, chunks, channels, per_group, pixels, eps,
    PIXELS: tl.constexpr, CHUNKS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Factor and addend of one group of channels of one picture."""
    picture = tl.program_id(1).to(tl.int64)
    within = tl.arange(0, CHANNELS)
    channel = tl.program_id(0) * per_group + within
    known = within < per_group
    moved = tl.full((CHANNELS,), 0.0, dtype=tl.float32)
    if shift is not None:
        moved += tl.load(shift + picture * channels + channel, mask=known, other=0.0).to(tl.float32)
    count = (pixels * per_group).to(tl.float32)

    total = tl.full((CHUNKS, CHANNELS), 0.0, dtype=tl.float32)
    for start in range(0, chunks, CHUNKS):
        chunk = start + tl.arange(0, CHUNKS)
        valid = (chunk < chunks)[:, None] & known[None, :]
        at = (picture * chunks + chunk)[:, None] * channels + channel[None, :]
        size = tl.minimum(pixels - chunk * PIXELS, PIXELS)[:, None]
        mean = tl.load(means + at, mask=valid, other=0.0) + moved[None, :]
        total += tl.where(valid, mean * size, 0.0)
    middle = tl.sum(tl.sum(total, axis=0), axis=0) / count

    spread = tl.full((CHUNKS, CHANNELS), 0.0, dtype=tl.float32)
    for start in range(0, chunks, CHUNKS):
        chunk = start + tl.arange(0, CHUNKS)
        valid = (chunk < chunks)[:, None] & known[None, :]
        at = (picture * chunks + chunk)[:, None] * channels + channel[None, :]
        size = tl.minimum(pixels - chunk * PIXELS, PIXELS)[:, None]
        apart = tl.load(means + at, mask=valid, other=0.0) + moved[None, :] - middle
        spread += tl.where(valid, tl.load(squares + at, mask=valid, other=0.0) + apart * apart * size, 0.0)
    gain = tl.rsqrt(tl.sum(tl.sum(spread, axis=0), axis=0) / count + eps)

    scale = tl.full((CHANNELS,), 1.0, dtype=tl.float32) * gain
    if weight is not None:
        scale *= tl.load(weight + channel, mask=known, other=0.0).to(tl.float32)
    offset = (moved - middle) * scale
    if bias is not None:
        offset += tl.load(bias + channel, mask=known, other=0.0).to(tl.float32)
    tl.store(factor + picture * channels + channel, scale, mask=known)
    tl.store(addend + picture * channels + channel, offset, mask=known)
