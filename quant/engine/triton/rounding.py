"""From floats to codes, inside a kernel."""

# A kernel's arguments have the types of each launch.
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import triton
import triton.language as tl

ROUND: tl.constexpr = tl.constexpr(12582912.0)
"""1.5 * 2^23: adding it to a small float32 leaves no room for a fraction, so the addition rounds half to even."""


@triton.jit
def encode(x, inverse, zero_point, top):
    """Codes uint8 of floats: `ActivationParameters.quantize` with `inverse` 1 / scale, all float32.

    Clipped before it is rounded: the codes are the same, because the ends are integers, the rounding is exact, and no
    compiler can contract the product and the sum on either side, which would round once instead of twice."""
    y = x * inverse
    y = tl.where(y == y, y, 0.0)
    y = tl.minimum(tl.maximum(y, -zero_point), top - zero_point)
    return ((y + ROUND) - ROUND + zero_point).to(tl.int32).to(tl.uint8)


@triton.jit
def encode_symmetric(x, inverse, top):
    """Codes int8 from -top to top."""
    y = x * inverse
    y = tl.where(y == y, y, 0.0)
    y = tl.minimum(tl.maximum(y, -top), top)
    return ((y + ROUND) - ROUND).to(tl.int32).to(tl.int8)
