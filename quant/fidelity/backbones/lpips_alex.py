"""AlexNet as LPIPS looks through it (Zhang et al. 2018, arXiv 1801.03924)."""

from __future__ import annotations

from pathlib import Path

from quant.fidelity.networks.lpips import LpipsNet, alexnet, with_weights
from quant.fidelity.networks.weights import WeightFile

WEIGHTS = WeightFile(
    "alexnet-owt-7be5be79.pth", "torchvision publishes as AlexNet_Weights.IMAGENET1K_V1", unused=("classifier.",)
)


def load(folder: Path) -> LpipsNet:
    """AlexNet from `folder` or torch.hub's cache. Raises BackboneMissing, and ModelError for other weights."""
    return with_weights(alexnet(), folder, WEIGHTS, "alex")
