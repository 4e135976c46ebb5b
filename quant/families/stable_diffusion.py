"""Stable Diffusion 1 and 2: a CLIP text encoder, a UNet with cross-attention, an autoencoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers import StableDiffusionPipeline

if TYPE_CHECKING:
    from quant.generation import Sampling

PIPELINE = StableDiffusionPipeline
"""The diffusers class of this family."""

DENOISER = "unet"
"""The component that is quantized."""


@torch.no_grad()
def encode_prompts(pipeline: StableDiffusionPipeline, prompts: list[str], sampling: Sampling) -> dict[str, Any]:
    """The arguments of the pipeline's call that carry the text: embeddings float [N, tokens, width], with those of the
    negative prompt where guidance is on."""
    guided = sampling.guidance_scale > 1.0
    embeds, negative_embeds = pipeline.encode_prompt(
        prompts, pipeline.device, 1, guided, [sampling.negative_prompt] * len(prompts) if guided else None
    )
    return {"prompt_embeds": embeds, "negative_prompt_embeds": negative_embeds}
