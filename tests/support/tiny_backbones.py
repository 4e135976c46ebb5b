"""Backbones of the real classes, small where they can be, with random weights: what tests use in place of real ones."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from quant.fidelity.networks.inception import InceptionNet
from quant.fidelity.networks.judge import Judge

SIDE = 32
"""The size of picture that the tiny judge reads."""

ALEXNET = ((3, 64, 11), (64, 192, 5), (192, 384, 3), (384, 256, 3), (256, 256, 3))
ALEXNET_INDICES = (0, 3, 6, 8, 10)
VGG16_WIDTHS = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
VGG16_INDICES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""Channels, kernels and places of the convolutions as torchvision's state dicts have them."""


def save_judge(folder: Path) -> None:
    """A judge of three attributes for pictures of `SIDE`."""
    torch.manual_seed(1)
    words = [f"word{i}" for i in range(8)]
    Judge(heads=[(name, words) for name in ("floor", "wall", "shape")], image_size=SIDE).save_pretrained(folder)


def save_clip(folder: Path, weights: bool = True) -> None:
    """A CLIP of 24 features for pictures of 32 x 32 and texts of 16 tokens, one per letter."""
    torch.manual_seed(2)
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[]).save_pretrained(folder)
    size = {"hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 2}
    text = size | {"vocab_size": 54, "max_position_embeddings": 16, "bos_token_id": 52, "eos_token_id": 53}
    vision = size | {"image_size": 32, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
    model.save_pretrained(folder)
    if not weights:
        (folder / "model.safetensors").unlink()


def alexnet_weights(seed: int = 3) -> dict[str, Tensor]:
    """Random weights under torchvision's names, with a classifier's, as the published file has them."""
    generator = torch.Generator().manual_seed(seed)
    return _convolutions(ALEXNET_INDICES, ALEXNET, generator) | {"classifier.6.weight": torch.zeros(2, 2)}


def vgg16_weights(seed: int = 4) -> dict[str, Tensor]:
    """As `alexnet_weights`."""
    generator = torch.Generator().manual_seed(seed)
    shapes = tuple((a, b, 3) for a, b in pairwise(VGG16_WIDTHS))
    return _convolutions(VGG16_INDICES, shapes, generator) | {"classifier.6.weight": torch.zeros(2, 2)}


def inception_weights() -> dict[str, Tensor]:
    """Random weights and statistics that keep activations in range."""
    torch.manual_seed(5)
    network = InceptionNet()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.uniform_(module.bias, -0.1, 0.1)
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    return network.state_dict() | {"fc.weight": torch.zeros(2, 2)}


def save_weights(folder: Path, weights: dict[str, Tensor]) -> None:
    """Writes `folder/weights.safetensors`."""
    folder.mkdir(parents=True)
    save_file(weights, folder / "weights.safetensors")


def _convolutions(
    indices: tuple[int, ...], shapes: tuple[tuple[int, int, int], ...], generator: torch.Generator
) -> dict[str, Tensor]:
    weights = {}
    for index, (inputs, outputs, kernel) in zip(indices, shapes, strict=True):
        scale = (2.0 / (inputs * kernel**2)) ** 0.5
        weights[f"features.{index}.weight"] = scale * torch.randn(outputs, inputs, kernel, kernel, generator=generator)
        weights[f"features.{index}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
    return weights
