"""The transformer of Stable Diffusion 3 and 3.5: text and picture in joint blocks, modulated by time and pooled
text."""

from __future__ import annotations

from typing import Any

from diffusers.models.attention import JointTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from torch import Tensor, nn

from quant.anatomies import Anatomy
from quant.layers.time_path.path import Request, TimePath

QUARTERS = 4
"""Distillation compares the output of every quarter of the blocks."""

_NORMS = ("norm1", "norm1_context", "norm_out")


class Sd3Transformer(Anatomy):
    """Scale, shift and gate of every block are one projection of an embedding of time and pooled text."""

    denoisers = (SD3Transformer2DModel,)
    blocks = (JointTransformerBlock,)

    def roles(self, denoiser: nn.Module) -> dict[str, tuple[str, ...]]:
        """As of every anatomy."""
        return {
            "input": ("pos_embed.proj", "context_embedder"),
            "output": ("proj_out",),
            "time": ("time_text_embed.*", *self._projections(denoiser)),
        }

    def stages(self, denoiser: nn.Module) -> tuple[str, ...]:
        """As of every anatomy: the last block of every quarter."""
        blocks: Any = denoiser.transformer_blocks
        parts = min(QUARTERS, len(blocks))
        return tuple(f"transformer_blocks.{len(blocks) * (part + 1) // parts - 1}" for part in range(parts))

    def stage_output(self, output: Any) -> Tensor:
        """As of every anatomy: blocks give text and picture."""
        picture: Tensor = output[1]
        return picture

    def bottleneck(self, denoiser: nn.Module) -> str:
        """As of every anatomy: what the middle block reads of the picture."""
        blocks: Any = denoiser.transformer_blocks
        return f"transformer_blocks.{len(blocks) // 2}"

    def attentions(self, denoiser: nn.Module) -> dict[str, Attention]:
        """None: there are no integer products for two streams yet."""
        return {}

    def time_path(self, denoiser: nn.Module) -> TimePath:
        """As of every anatomy."""
        return TimePath(("time_text_embed",), self._projections(denoiser), self._inputs, ("pooled_projections",))

    def _projections(self, denoiser: nn.Module) -> tuple[str, ...]:
        names = (name for name, _ in denoiser.named_modules())
        return tuple(f"{name}.linear" for name in names if name.rpartition(".")[2] in _NORMS)

    def _inputs(self, denoiser: Any, timesteps: Tensor, request: Request) -> dict[str, Tensor]:
        embedding = denoiser.time_text_embed(timesteps, request["pooled_projections"])
        parents = {name: name.removesuffix(".linear") for name in self._projections(denoiser)}
        return {name: denoiser.get_submodule(parent).silu(embedding) for name, parent in parents.items()}


ANATOMY = Sd3Transformer()
