"""The range whose grid loses least: rare large values are clipped when that makes the many small ones finer."""

from __future__ import annotations

import torch
from torch import Tensor

from quant.errors import RecipeMismatch
from quant.observers.minmax import MinMaxObserver
from quant.observers.reservoir import Reservoir
from quant.tensor.affine import SMALLEST_SCALE, from_codes, grid, to_codes, unsigned_top

ERROR_EXPONENT = 2.4
"""The power of |v - Q(v)| that searches minimise, after LAPQ (arXiv 1911.07190); with the shrinks below, the search in
the code of BRECQ (arXiv 2102.05426) and Q-Diffusion (arXiv 2302.04304)."""

SHRINKS = tuple(1.0 - 0.01 * i for i in range(80))
"""By how much searches shrink the min-max range, that range itself first."""


class MseObserver:
    """Remembers the exact range of a tensor and a uniform random sample of all its values, without replacement;
    `low` and `high` are the ends of `least_error_range` over that sample, and inf and -inf before the first value.

    Memory is `samples` floats. The same calls in the same order with the same seed give the same range. A value too
    rare to be in the sample counts for nothing but as an end that the search starts from."""

    def __init__(self, bits: int, samples: int = 16384, seed: int = 0) -> None:
        """For a grid of 2^`bits` levels, `bits` 2 to 8. Raises RecipeMismatch for other bits and for no samples."""
        if not 2 <= bits <= 8:
            raise RecipeMismatch(f"a range for {bits} bits was asked for: activations have 2 to 8")
        if samples < 1:
            raise RecipeMismatch(f"a sample of {samples} values tells nothing about a range")
        self._bits = bits
        self._extremes = MinMaxObserver()
        self._reservoir = Reservoir(samples, seed)
        self._found: tuple[float, float] | None = None

    @property
    def low(self) -> float:
        """The lower end of the range; searched for when it is first read after a batch."""
        return self._range()[0]

    @property
    def high(self) -> float:
        """The upper end of the range."""
        return self._range()[1]

    @property
    def sample(self) -> Tensor:
        """The values remembered, float32 [min(samples, values seen)] on the CPU."""
        return self._reservoir.sample

    def observe(self, x: Tensor) -> None:
        """Takes the values of `x`, of any shape and floating dtype, into account. Raises QuantError when one is not
        finite, ignores an empty tensor."""
        if not x.numel():
            return
        self._extremes.observe(x)
        self._found = None
        self._reservoir.add(x)

    def _range(self) -> tuple[float, float]:
        if self._found is None:
            low, high = self._extremes.low, self._extremes.high
            self._found = least_error_range(self.sample, low, high, self._bits) if self._reservoir.seen else (low, high)
        return self._found


def least_error_range(values: Tensor, low: float, high: float, bits: int) -> tuple[float, float]:
    """Of the ranges [f low, f high], f in SHRINKS, the widest with the least mean |v - Q(v)|^ERROR_EXPONENT over
    `values`, float32 [n], Q being `round_to_grid`."""
    extent = max(max(high, 0.0) - min(low, 0.0), SMALLEST_SCALE)  # errors in its units can neither over- nor underflow
    best, found = float("inf"), (low, high)
    for shrink in SHRINKS:
        error = round_to_grid(values, shrink * low, shrink * high, bits).sub_(values).div_(extent).abs_()
        mean = error.pow_(ERROR_EXPONENT).mean(dtype=torch.float64).item()
        if mean < best:
            best, found = mean, (shrink * low, shrink * high)
    return found


def round_to_grid(values: Tensor, low: float, high: float, bits: int) -> Tensor:
    """What codes of `bits` bits over [low, high], widened to contain zero, make of float32 values: the same numbers, to
    the last bit, as `dequantize(quantize(values))` of `ActivationParameters.from_range(low, high, bits)`, which is a
    layer above observers."""
    scale, zero_point = grid(low, high, bits)
    return from_codes(to_codes(values * (1.0 / scale), 0, unsigned_top(bits), zero_point), scale, zero_point)
