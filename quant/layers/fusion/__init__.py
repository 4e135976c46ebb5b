"""Blocks of diffusers run with as few passes over the data as possible: codes go from layer to layer.

`fuse` gives blocks whose layers are quantized another class, a subclass of their own with another `forward`. Names,
tensors and results stay the same. Where a block cannot run fused, its original `forward` does: with a mask, a layer in
floating point, in training or where gradients are asked for, and when something in it was changed after fusing (another
attention processor, a child in a wrapper, a hook)."""

from __future__ import annotations

import torch
from torch import nn

from quant.layers.fusion.parts import Parts
from quant.layers.fusion.resample import FusedUpsample2D
from quant.layers.fusion.resnet import FusedResnetBlock2D
from quant.layers.fusion.transformer import FusedTransformer2DModel, FusedTransformerBlock

_FUSED = (FusedResnetBlock2D, FusedTransformerBlock, FusedTransformer2DModel, FusedUpsample2D)


def fuse(denoiser: nn.Module) -> None:
    """Fuses, in place, every block that can be; convolutions that stay floating point become channels-last."""
    for module in denoiser.modules():
        for fused in _FUSED:
            if type(module) is fused.__base__ and fused.can_fuse(module):  # type: ignore[arg-type]
                module.__class__ = fused
                module.__dict__["fused_parts"] = Parts(module, fused.PARTS)
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def unfuse(denoiser: nn.Module) -> None:
    """Gives every fused block its own class back, in place."""
    for module in denoiser.modules():
        if isinstance(module, _FUSED):
            module.__class__ = type(module).__base__  # type: ignore[assignment]
            del module.__dict__["fused_parts"]
