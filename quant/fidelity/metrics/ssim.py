"""Structural similarity between two pictures, at most 1; higher is closer (Wang et al. 2004, Gaussian window 11).

The mean is over the places where the whole window lies inside the picture, as in the paper."""

from __future__ import annotations

from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from quant.errors import PictureMismatch
from quant.fidelity.metric import Traits
from quant.fidelity.pair import Pair

TRAITS = Traits(better="higher", identical=1.0)

WINDOW = 11
SIGMA = 1.5


def score(pair: Pair, backbone: str = "") -> Tensor:
    """Float32 [N], computed in float64. Raises PictureMismatch for pictures smaller than the window."""
    reference, variant = pair.reference.values.double(), pair.variant.values.double()
    if min(reference.shape[2:]) < WINDOW:
        raise PictureMismatch(f"structural similarity needs pictures of {WINDOW} x {WINDOW} and more")
    _, everywhere = structural_similarity_index_measure(
        variant, reference, sigma=SIGMA, kernel_size=WINDOW, data_range=1.0, reduction="none", return_full_image=True
    )
    inside = slice(WINDOW // 2, -(WINDOW // 2))
    return everywhere[..., inside, inside].flatten(1).mean(1).float()
