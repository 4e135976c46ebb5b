"""How far the edges of two pictures are apart: the mean absolute difference of their gradients."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from quant.fidelity.metric import Traits
from quant.fidelity.pair import Pair

TRAITS = Traits(better="lower", identical=0.0)


def score(pair: Pair, backbone: Any) -> Tensor:
    """One value per picture, float32 [N]."""
    apart = [
        (pair.reference.values.diff(dim=axis) - pair.variant.values.diff(dim=axis)).abs().mean(dim=(1, 2, 3))
        for axis in (2, 3)
    ]
    return (apart[0] + apart[1]) / 2
