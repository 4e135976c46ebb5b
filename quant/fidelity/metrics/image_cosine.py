"""Cosine between the features of the reference's and the variant's picture, at most 1; higher is closer.

Through CLIP it is the CLIP-I of Ruiz et al. 2022, arXiv 2208.12242, of each picture with its own reference."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from quant.fidelity.metric import Traits
from quant.fidelity.pair import Pair

TRAITS = Traits(better="higher", identical=1.0, backbones=("judge", "clip", "inception"))


def score(pair: Pair, backbone: str = "judge") -> Tensor:
    """Float32 [N]. Raises BackboneMissing, and PictureMismatch for pictures that the backbone cannot read."""
    reference, variant = pair.features(backbone)
    return functional.cosine_similarity(reference, variant, dim=1)
