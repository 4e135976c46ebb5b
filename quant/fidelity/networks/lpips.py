"""The networks that LPIPS looks through: the convolutions of AlexNet and VGG16, with a learned weight per channel.

Zhang et al. 2018, arXiv 1801.03924, version 0.1 of the weights. Convolutions have the names of torchvision's state
dicts (`features.0.weight`); the weights per channel come with torchmetrics."""

from __future__ import annotations

from pathlib import Path

import torch
import torchmetrics
from torch import Tensor, nn

from quant.errors import PictureMismatch
from quant.fidelity.networks.weights import WeightFile, fill

HEADS = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models"
"""Holds `alex.pth` and `vgg.pth`: `lin0.model.1.weight` and so on, float32 [1, C, 1, 1]."""

SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
"""ImageNet's mean and deviation per channel, for pictures in [-1, 1]."""


class LpipsNet(nn.Module):
    """A stack of convolutions that is read after some of its layers, and a weight per channel for each reading."""

    def __init__(self, features: nn.Sequential, taps: tuple[int, ...], smallest: int) -> None:
        super().__init__()
        self.features = features
        self.taps = taps
        self.smallest = smallest
        self.heads: list[Tensor] = []

    @torch.no_grad()
    def layers(self, values: Tensor) -> list[Tensor]:
        """Activations float32 [N, C, h, w] after each of `taps`, of pictures [N, 3, H, W] in [0, 1]. Raises
        PictureMismatch for pictures too small for the network."""
        if min(values.shape[2:]) < self.smallest:
            raise PictureMismatch(
                f"pictures of {values.shape[3]} x {values.shape[2]} are too small for LPIPS, which reads "
                f"{self.smallest} x {self.smallest} and more"
            )
        shift, scale = (values.new_tensor(channels).view(1, 3, 1, 1) for channels in (SHIFT, SCALE))
        x = (2.0 * values - 1.0 - shift) / scale
        readings = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                readings.append(x)
        return readings

    def embed(self, values: Tensor) -> Tensor:
        """The last reading's mean over the picture, float32 [N, C], of pictures [N, 3, H, W] in [0, 1]. Raises
        PictureMismatch."""
        return self.layers(values)[-1].mean(dim=(2, 3))


def alexnet() -> LpipsNet:
    """AlexNet (Krizhevsky 2014, arXiv 1404.5997) without weights, read after each of its five convolutions."""
    features = nn.Sequential(
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    )
    return LpipsNet(features, taps=(1, 4, 7, 9, 11), smallest=31)


def vgg16() -> LpipsNet:
    """VGG16 (Simonyan & Zisserman 2014, arXiv 1409.1556) without weights, read after each of its five groups."""
    layers: list[nn.Module] = []
    inputs = 3
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        layers += [nn.MaxPool2d(2)] if layers else []
        for _ in range(depth):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            inputs = width
    return LpipsNet(nn.Sequential(*layers), taps=(3, 8, 15, 22, 29), smallest=16)


def with_weights(network: LpipsNet, folder: Path, wanted: WeightFile, heads: str) -> LpipsNet:
    """The network with its published convolutions and the heads of `HEADS`/`heads`.pth, each float32 [C]. Raises
    BackboneMissing and ModelError as `fill` does."""
    fill(network, folder, wanted)
    learned = torch.load(HEADS / f"{heads}.pth", map_location="cpu", weights_only=True)
    network.heads = [learned[f"lin{i}.model.1.weight"].flatten().float() for i in range(len(network.taps))]
    return network
