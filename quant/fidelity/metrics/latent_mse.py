"""Mean squared error between the final latents of reference and variant; lower is closer."""

from __future__ import annotations

from torch import Tensor

from quant.fidelity.metric import Traits
from quant.fidelity.pair import Pair

TRAITS = Traits(better="lower", identical=0.0)


def score(pair: Pair, backbone: str = "") -> Tensor:
    """Float32 [N]."""
    return (pair.variant.latents - pair.reference.latents).square().mean(dim=(1, 2, 3))
