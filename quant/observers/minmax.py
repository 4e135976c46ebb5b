"""The smallest and the largest value ever seen."""

from __future__ import annotations

from torch import Tensor

from quant.errors import QuantError


class MinMaxObserver:
    """Remembers the range of a tensor."""

    def __init__(self) -> None:
        self.low = float("inf")
        self.high = float("-inf")

    def observe(self, x: Tensor) -> None:
        """Widens the range by the values of `x`. Raises QuantError when one is not finite, ignores an empty tensor."""
        if not x.numel():
            return
        low, high = (value.item() for value in x.aminmax())
        if not (low > float("-inf") and high < float("inf")):  # false for NaN as well
            raise QuantError(f"calibration met an activation that is not finite (range {low} to {high})")
        self.low, self.high = min(self.low, low), max(self.high, high)
