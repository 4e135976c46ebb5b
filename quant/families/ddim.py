"""Unconditional pictures: a UNet2DModel that denoises pixels, asked with nothing but a seed (DDPM, arXiv 2006.11239;
DDIM, arXiv 2010.02502)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from diffusers import DDIMPipeline, DDPMPipeline
from torch import Tensor, nn

from quant.conditioning import Conditioning, Rows
from quant.errors import ModelError
from quant.families import Family

if TYPE_CHECKING:
    from quant.sampling.request import Asked, Sampling


class Unconditional(Family):
    """The size of a picture is the model's."""

    pipelines = (DDIMPipeline, DDPMPipeline)
    asked = "nothing"
    samplers = "own"

    def check(self, pipeline: Any) -> None:
        """As of every family."""
        config = pipeline.unet.config
        if config.in_channels != 3:
            raise ModelError(f"the denoiser takes {config.in_channels} channels: pictures have 3")
        if config.class_embed_type is not None or config.num_class_embeds is not None:
            raise ModelError("the denoiser takes a class beside the timestep: not this family")

    def condition(self, pipeline: Any, asked: Sequence[Asked], sampling: Sampling) -> Conditioning:
        """Nothing."""
        return Conditioning({}, torch.ones(len(asked)))

    def guides(self, sampling: Sampling) -> bool:
        """There is nothing to leave out."""
        return False

    def multiple_of(self, pipeline: Any) -> int:
        """As of every family."""
        return 1

    def fixed_size(self, pipeline: Any) -> tuple[int, int]:
        """As of every family: the size that the denoiser was made for."""
        size = pipeline.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return width, height

    def latent_shape(self, pipeline: Any, sampling: Sampling) -> tuple[int, ...]:
        """As of every family: pixels."""
        return pipeline.unet.config.in_channels, sampling.height, sampling.width

    def call(self, denoiser: nn.Module, latents: Tensor, timesteps: Tensor, rows: Rows) -> Tensor:
        """As of every family; where the denoiser gives a variance, too, that is cut off."""
        out: Tensor = denoiser(latents, timesteps, return_dict=False)[0]
        return out[:, : latents.shape[1]]

    def decode(self, pipeline: Any, latents: Tensor) -> Tensor:
        """As of every family."""
        return latents.float()


FAMILY = Unconditional()
