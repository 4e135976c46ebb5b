"""Fréchet distance between Gaussians fitted to two sets of features; lower is closer. Through Inception it is FID.

Heusel et al. 2017, arXiv 1706.08500, eq. 6. It is biased: it depends on the number of pictures, so only distances of
equally large sets can be held against each other."""

from __future__ import annotations

import torch
from torch import Tensor

from quant.fidelity.feature_sets import comparable
from quant.fidelity.metric import Traits

TRAITS = Traits(better="lower", identical=0.0, backbones=("judge", "inception", "clip"))


def distance(reference: Tensor, variant: Tensor) -> float:
    """||m1 - m2||² + tr(C1) + tr(C2) - 2 tr((C1 C2)^½) of features [N, D] and [M, D], in float64, never below 0.

    With C = RᵀR, R from the QR factors of the centred features, the last trace is the sum of the singular values of
    R1 R2ᵀ: no root of a matrix is taken, so covariances may be singular. Raises EvaluationError for fewer than two
    pictures and for features that are not finite."""
    sets = comparable(reference, variant)
    apart = (sets[0].mean(dim=0) - sets[1].mean(dim=0)).square().sum()
    first, second = _factor(sets[0]), _factor(sets[1])
    shared = torch.linalg.matrix_norm(first @ second.T, ord="nuc")
    return max(0.0, float(apart + first.square().sum() + second.square().sum() - 2.0 * shared))


def _factor(features: Tensor) -> Tensor:
    """R [min(N, D), D] with RᵀR the features' unbiased covariance."""
    centred = (features - features.mean(dim=0)) / (len(features) - 1) ** 0.5
    return torch.linalg.qr(centred, mode="r").R
