"""Structural similarity between two pictures, at most 1; higher is closer (Wang et al. 2004, Gaussian window 11)."""

from __future__ import annotations

from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from quant.metric import Traits
from quant.pair import Pair

TRAITS = Traits(better="higher", identical=1.0)


def score(pair: Pair, backbone: str = "") -> Tensor:
    """Float32 [N]."""
    result = structural_similarity_index_measure(
        pair.variant.values, pair.reference.values, data_range=1.0, reduction="none"
    )
    return result[0] if isinstance(result, tuple) else result
