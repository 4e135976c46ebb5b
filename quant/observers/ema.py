"""The range as an exponential moving average over batches: one unusual batch does not widen it for good."""

from __future__ import annotations

from torch import Tensor

from quant.errors import RecipeMismatch
from quant.observers.minmax import MinMaxObserver


class EmaObserver:
    """Remembers a smoothed range of a tensor, `low` to `high`; before the first batch they are inf and -inf.

    After batches with ranges r_0, ..., r_n, each end is (1 - m)^n r_0 + m sum_{i=1..n} (1 - m)^(n-i) r_i, with m the
    momentum: what Jacob et al. (arXiv 1712.05877) collect of activations. Values outside it are clipped."""

    def __init__(self, momentum: float = 0.1) -> None:
        """`momentum` is the weight of the newest batch, in (0, 1]; raises RecipeMismatch for any other."""
        if not 0.0 < momentum <= 1.0:  # false for NaN as well
            raise RecipeMismatch(f"momentum {momentum} of a moving average must be above 0 and at most 1")
        self.momentum = momentum
        self.low = float("inf")
        self.high = float("-inf")

    def observe(self, x: Tensor) -> None:
        """Moves the range towards that of `x`, of any shape and floating dtype; the first batch sets it. Raises
        QuantError when a value is not finite, ignores an empty tensor."""
        if not x.numel():
            return
        batch = MinMaxObserver()
        batch.observe(x)
        if self.low > self.high:
            self.low, self.high = batch.low, batch.high
            return
        self.low += self.momentum * (batch.low - self.low)
        self.high += self.momentum * (batch.high - self.high)
