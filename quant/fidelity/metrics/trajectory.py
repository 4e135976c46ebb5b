"""Relative distance of the variant's latents from the reference's, step by step; lower is closer."""

from __future__ import annotations

import torch
from torch import Tensor

from quant.errors import PictureMismatch
from quant.fidelity.metric import Traits
from quant.fidelity.pair import Pair

TRAITS = Traits(better="lower", identical=0.0, symmetric=False)

DIVERGED = 0.05
"""The relative distance beyond which two trajectories have parted."""


def score(pair: Pair, backbone: str = "") -> Tensor:
    """Float32 [N], the mean over the steps. Raises PictureMismatch as `distances` does."""
    return distances(pair).mean(dim=1)


def distances(pair: Pair) -> Tensor:
    """||x'_k - x_k|| / ||x_k|| of the latents after every step k, float32 [N, steps]. Raises PictureMismatch for
    trajectories of different lengths or sizes."""
    reference, variant = pair.reference.trajectory, pair.variant.trajectory
    if reference.shape != variant.shape:
        raise PictureMismatch(
            f"trajectories {tuple(reference.shape)} and {tuple(variant.shape)} cannot be compared: draw both with the "
            "same sampler, steps and size"
        )
    return (variant - reference).flatten(2).norm(dim=2) / reference.flatten(2).norm(dim=2)


def first_diverging_step(distances: Tensor) -> Tensor:
    """The first step, counted from 1, whose distance is above `DIVERGED`, float32 [N], of distances [N, steps]; NaN
    where none is. A distance that is not a number counts as above."""
    diverged = ~(distances <= DIVERGED)
    first = diverged.int().argmax(dim=1).float() + 1.0
    return torch.where(diverged.any(dim=1), first, float("nan"))
