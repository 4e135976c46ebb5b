"""What UNets share: down, middle and up blocks, skip connections between them, and an embedding of the time that
residual blocks project."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from quant.anatomies import Anatomy
from quant.errors import RecipeMismatch

_TIME = ("time_embedding.*", "*.time_emb_proj", "add_embedding.*", "class_embedding.*")
"""Patterns of the layers of the time path, the temporal information block of TFMQ-DM."""


class Unet(Anatomy):
    """Concatenated skip connections are split where a shortcut convolution reads them."""

    def roles(self, denoiser: nn.Module) -> dict[str, tuple[str, ...]]:
        """As of every anatomy."""
        layers = [name for name, module in denoiser.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
        time = (pattern for pattern in _TIME if any(fnmatchcase(name, pattern) for name in layers))
        return {"input": ("conv_in",), "output": ("conv_out",), "time": tuple(time)}

    def stages(self, denoiser: nn.Module) -> tuple[str, ...]:
        """As of every anatomy: down, middle and up blocks."""
        names = [name for name, _ in denoiser.named_modules()]
        inside = ("down_blocks.", "up_blocks.")
        return tuple(n for n in names if n == "mid_block" or (n.count(".") == 1 and n.startswith(inside)))

    def bottleneck(self, denoiser: nn.Module) -> str:
        """As of every anatomy: the attention of the middle block, as EDA-DM (arXiv 2401.04585) has it."""
        if not getattr(getattr(denoiser, "mid_block", None), "attentions", None):
            raise RecipeMismatch("tdac reads the attention of the middle block, which this denoiser does not have")
        return "mid_block.attentions.0"

    def splits(self, denoiser: nn.Module) -> dict[str, int]:
        """As of every anatomy: shortcut convolutions of the up blocks, whose first channels come from below, the others
        being the skip connection's."""
        splits: dict[str, int] = {}
        channels = _middle_channels(denoiser)
        for name, block in denoiser.named_modules():
            if not isinstance(block, ResnetBlock2D) or not name.startswith("up_blocks."):
                continue
            if block.conv_shortcut is not None and block.in_channels > channels:
                splits[f"{name}.conv_shortcut"] = channels
            channels = block.out_channels
        return splits

    def projections(self, denoiser: nn.Module) -> tuple[str, ...]:
        """The layers that project the embedding of the time."""
        return tuple(f"{name}.time_emb_proj" for name in blocks(denoiser))


def blocks(denoiser: nn.Module) -> dict[str, Any]:
    """The residual blocks that take the embedding, by their full name."""
    return {
        name: module
        for name, module in denoiser.named_modules()
        if isinstance(module, ResnetBlock2D) and module.time_emb_proj is not None
    }


def read_by_blocks(denoiser: nn.Module, embedding: Tensor) -> dict[str, Tensor]:
    """An embedding [M, E] as each projection takes it, by the projection's name."""
    return {
        f"{name}.time_emb_proj": embedding if block.skip_time_act else block.nonlinearity(embedding)
        for name, block in blocks(denoiser).items()
    }


def _middle_channels(denoiser: nn.Module) -> int:
    middle: Any = getattr(denoiser, "mid_block", None)
    inside = [module for module in middle.modules() if isinstance(module, ResnetBlock2D)] if middle is not None else []
    if inside:
        return int(inside[-1].out_channels)
    config: Any = denoiser.config
    return int(config.block_out_channels[-1])
