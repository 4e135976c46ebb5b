"""The integer product: one kernel for tokens and for pictures, a linear layer being a convolution of one tap."""

# A kernel's arguments have the types of each launch.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from quant.engine.triton.launch import ceil_div, multiprocessors, on_device_of
from quant.engine.triton.tile import choose


@dataclass(frozen=True)
class Geometry:
    """Where the codes of an output row are: row m is pixel m % `pixels` of picture m // `pixels`, `width` to a line.

    Steps count codes: from picture to picture, from one output line or pixel to the next, from tap to tap."""

    pixels: int
    width: int
    picture: int = 0
    line: int = 0
    pixel: int = 0
    tap_line: int = 0
    tap_column: int = 0
    groups: int = 1


@dataclass(frozen=True)
class Factors:
    """What integer sums are multiplied by and what is added: scales float32 [N] of the weight, sums int32 [N] of its
    codes, a bias float32 [N] or None; of the codes either scale and zero point, or a float32 scale per row."""

    weight_scale: Tensor
    weight_sums: Tensor
    bias: Tensor | None
    scale: float = 1.0
    zero_point: int = 0
    per_row: Tensor | None = None


def multiply(
    codes: Tensor, weight: Tensor, factors: Factors, geometry: Geometry, out: Tensor, residual: Tensor | None
) -> None:
    """Fills `out`, [M, N] in memory, with floats from codes (uint8, or int8 with a scale per row) and a weight int8
    [N, taps, columns, C / groups]; `residual`, laid out as `out`, is added."""
    groups = geometry.groups
    outputs, channels = weight.shape[0] // groups, weight.shape[-1]
    rows = out.numel() // weight.shape[0]
    if rows == 0:
        return
    tile = choose(rows, outputs, channels, groups, multiprocessors(codes.device))
    blocks = ceil_div(rows, tile.rows) * ceil_div(outputs, tile.columns)
    with on_device_of(codes):
        product_kernel[(blocks, groups)](
            codes, weight, out, factors.weight_scale, factors.weight_sums, factors.bias, residual, factors.per_row,
            factors.scale, 128 - factors.zero_point, rows, outputs, channels,
            geometry.pixels, geometry.width, geometry.picture, geometry.line, geometry.pixel,
            geometry.tap_line, geometry.tap_column,
            TAPS=weight.shape[1] * weight.shape[2], TAP_COLUMNS=weight.shape[2], SIGNED=codes.dtype == torch.int8,
            **tile.constants,
        )  # fmt: skip


@triton.jit(do_not_specialize=["offset", "rows", "pixels", "width"])
def product_kernel(
    codes, weight, out, weight_scale, weight_sums, bias, residual, per_row,
    scale, offset, rows, outputs, channels,
    pixels, width, picture_step, line_step, pixel_step, tap_line_step, tap_column_step,
    TAPS: tl.constexpr, TAP_COLUMNS: tl.constexpr, SIGNED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One block of sums. Tensor cores multiply int8 by int8: an unsigned code c is read as c - 128, and what that
    leaves, (128 - zero point) * the sum of the weight's codes, is added to the integers before they are scaled."""
    # Eight blocks of rows share the columns of the weight that the L2 cache holds.
    across = (outputs + BLOCK_N - 1) // BLOCK_N
    down = (rows + BLOCK_M - 1) // BLOCK_M
    band = tl.program_id(0) // (8 * across)
    height = tl.minimum(down - band * 8, 8)
    within = tl.program_id(0) % (8 * across)
    group = tl.program_id(1)

    m = (band * 8 + within % height) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = (within // height) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    row = tl.minimum(m, rows - 1)
    place = row % pixels
    line = (place // width).to(tl.int64)
    column = (place % width).to(tl.int64)
    first = (row // pixels).to(tl.int64) * picture_step + line * line_step + column * pixel_step
    from_codes = codes + group * channels + first[:, None] + k[None, :]
    from_weight = weight + (group * outputs + tl.minimum(n, outputs - 1)).to(tl.int64)[None, :] * (TAPS * channels)
    from_weight += k[:, None]

    sums = tl.full((BLOCK_M, BLOCK_N), 0, dtype=tl.int32)
    blocks = (channels + BLOCK_K - 1) // BLOCK_K
    for step in range(TAPS * blocks):
        tap = step // blocks
        start = (step % blocks) * BLOCK_K
        left = channels - start
        to_tap = (tap // TAP_COLUMNS) * tap_line_step + (tap % TAP_COLUMNS) * tap_column_step
        a = tl.load(from_codes + (to_tap + start), mask=k[None, :] < left, other=0)
        b = tl.load(from_weight + (tap * channels + start), mask=k[:, None] < left, other=0)
        if not SIGNED:
            a = (a ^ 128).to(tl.int8, bitcast=True)
        sums = tl.dot(a, b, sums, out_dtype=tl.int32)

    valid = (m < rows)[:, None] & (n < outputs)[None, :]
    channel = group * outputs + n
    known = n < outputs
    factor = tl.load(weight_scale + channel, mask=known, other=0.0) * scale
    if not SIGNED:
        sums += (tl.load(weight_sums + channel, mask=known, other=0) * offset)[None, :]
    values = sums.to(tl.float32) * factor[None, :]
    if per_row is not None:
        values *= tl.load(per_row + m, mask=m < rows, other=0.0)[:, None]
    if bias is not None:
        values += tl.load(bias + channel, mask=known, other=0.0)[None, :]
    at = m.to(tl.int64)[:, None] * (tl.num_programs(1) * outputs) + channel[None, :]
    if residual is not None:
        values += tl.load(residual + at, mask=valid, other=0.0).to(tl.float32)
    tl.store(out + at, values.to(out.dtype.element_ty), mask=valid)
