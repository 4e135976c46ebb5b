"""Inception-v3 as FID looks through it, with the weights of 2015-12-05; pictures are prepared as pytorch-fid does."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from quant.fidelity.networks.inception import InceptionNet
from quant.fidelity.networks.weights import WeightFile, fill

WEIGHTS = WeightFile(
    "pt_inception-2015-12-05-6726825d.pth",
    "pytorch-fid publishes on GitHub (mseitzer/pytorch-fid, release fid_weights)",
    unused=("fc.", "AuxLogits."),
)
SIDE = 299


class InceptionBackbone:
    """Pooled features of pictures of any size."""

    def __init__(self, network: InceptionNet) -> None:
        self.network = network

    @torch.no_grad()
    def embed(self, values: Tensor) -> Tensor:
        """Float32 [N, 2048] of pictures [N, 3, H, W] in [0, 1].

        They are resized to 299 x 299, bilinear between pixel centres and without antialiasing, as pytorch-fid does
        (torch-fidelity imitates the corner convention of TensorFlow 1 instead), and scaled to [-1, 1]."""
        resized = functional.interpolate(values, (SIDE, SIDE), mode="bilinear", align_corners=False)
        return self.network(2.0 * resized - 1.0)


def load(folder: Path) -> InceptionBackbone:
    """Inception-v3 from `folder` or torch.hub's cache. Raises BackboneMissing, and ModelError for other weights."""
    network = InceptionNet()
    fill(network, folder, WEIGHTS)
    return InceptionBackbone(network)
