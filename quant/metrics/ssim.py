"""Structural similarity between two pictures, at most 1; higher is closer (Wang et al. 2004, Gaussian window 11).

The mean is over the places where the whole window lies inside the picture, as in the paper."""

from __future__ import annotations

import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from quant.errors import PictureMismatch
from quant.metric import Traits
from quant.pair import Pair

TRAITS = Traits(better="higher", identical=1.0)

WINDOW = 11
SIGMA = 1.5


def score(pair: Pair, backbone: str = "") -> Tensor:
    """Float32 [N], computed in float64. Raises PictureMismatch for pictures smaller than the window."""
    reference, variant = pair.reference.values.double().numpy(), pair.variant.values.double().numpy()
    if min(reference.shape[2:]) < WINDOW:
        raise PictureMismatch(f"structural similarity needs pictures of {WINDOW} x {WINDOW} and more")
    return torch.tensor(
        [
            structural_similarity(
                one,
                other,
                channel_axis=0,
                data_range=1.0,
                gaussian_weights=True,
                sigma=SIGMA,
                use_sample_covariance=False,
            )
            for one, other in zip(reference, variant, strict=True)
        ],
        dtype=torch.float32,
    )
