"""Mean squared error between the final latents of reference and variant; lower is closer."""

from __future__ import annotations

from torch import Tensor

from quant.pair import Pair


def score(pair: Pair) -> Tensor:
    """Float32 [N]."""
    return (pair.variant.latents - pair.reference.latents).square().mean(dim=(1, 2, 3))
