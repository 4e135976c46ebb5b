"""Kernel distance between two sets of features, the squared maximum mean discrepancy under (x·y / D + 1)³; lower is
closer. Through Inception it is KID.

Bińkowski et al. 2018, arXiv 1801.01401, over the whole sets rather than over random subsets. It is unbiased: 0 in the
mean for sets of one distribution, so a single value may be slightly negative."""

from __future__ import annotations

from torch import Tensor
from torchmetrics.image.kid import poly_kernel

from quant.fidelity.feature_sets import comparable
from quant.fidelity.metric import Traits

TRAITS = Traits(better="lower", identical=0.0, backbones=("judge", "inception", "clip"))


def distance(reference: Tensor, variant: Tensor) -> float:
    """The estimate for features [N, D] and [M, D], computed in float64.

    For sets of one size it is the U-statistic of Gretton et al. 2012 (lemma 6), which leaves out the kernel between the
    two pictures of a pair: they come from the same noise, and counting them would push the estimate below 0. Raises
    EvaluationError for fewer than two pictures, and for features that are not finite."""
    first, second = comparable(reference, variant)
    across = poly_kernel(first, second)
    between = _between_others(across) if len(first) == len(second) else across.mean()
    within = _between_others(poly_kernel(first, first)) + _between_others(poly_kernel(second, second))
    return float(within - 2.0 * between)


def _between_others(kernel: Tensor) -> Tensor:
    """The mean of a square matrix without its diagonal."""
    return (kernel.sum() - kernel.diagonal().sum()) / (len(kernel) * (len(kernel) - 1))
