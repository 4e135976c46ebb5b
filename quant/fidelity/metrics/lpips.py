"""Learned perceptual distance between two pictures; lower is closer (Zhang et al. 2018, arXiv 1801.03924, v0.1)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from quant.fidelity.metric import Traits
from quant.fidelity.networks.lpips import LpipsNet
from quant.fidelity.pair import Pair

TRAITS = Traits(better="lower", identical=0.0, backbones=("lpips_alex", "lpips_vgg"))


def score(pair: Pair, backbone: str = "lpips_alex") -> Tensor:
    """Float32 [N]: eq. 1, summed over the network's layers. Raises BackboneMissing, and PictureMismatch for pictures
    too small for the network."""
    network = cast(LpipsNet, pair.backbones.get(backbone))
    layers = zip(network.layers(pair.reference.values), network.layers(pair.variant.values), network.heads, strict=True)
    return torch.stack([_distance(reference, variant, head) for reference, variant, head in layers]).sum(dim=0)


def _distance(reference: Tensor, variant: Tensor, head: Tensor) -> Tensor:
    """Weighted squared distance of unit activations, meaned over the picture, float32 [N]."""
    difference = (_unit(reference) - _unit(variant)).square()
    return (difference * head.view(1, -1, 1, 1)).sum(dim=1).mean(dim=(1, 2))


def _unit(activations: Tensor) -> Tensor:
    return activations / (activations.norm(dim=1, keepdim=True) + 1e-10)
