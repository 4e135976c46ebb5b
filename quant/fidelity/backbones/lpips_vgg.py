"""VGG16 as LPIPS looks through it (Zhang et al. 2018, arXiv 1801.03924)."""

from __future__ import annotations

from pathlib import Path

from quant.fidelity.networks.lpips import LpipsNet, vgg16, with_weights
from quant.fidelity.networks.weights import WeightFile

WEIGHTS = WeightFile(
    "vgg16-397923af.pth", "torchvision publishes as VGG16_Weights.IMAGENET1K_V1", unused=("classifier.",)
)


def load(folder: Path) -> LpipsNet:
    """VGG16 from `folder` or torch.hub's cache. Raises BackboneMissing, and ModelError for other weights."""
    return with_weights(vgg16(), folder, WEIGHTS, "vgg")
