"""Stable Diffusion 1 and 2: a CLIP text encoder, a UNet with cross-attention, an autoencoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

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


def conditioning(context: dict[str, Any]) -> Tensor:
    """What `encode_prompts` gave as the denoiser takes it: float [N, branches, tokens, width], the branch without the
    prompt first where guidance is on."""
    negative, positive = context["negative_prompt_embeds"], context["prompt_embeds"]
    return torch.stack([positive] if negative is None else [negative, positive], dim=1)


def call_denoiser(denoiser: nn.Module, latents: Tensor, timesteps: Tensor, conditioning: Tensor) -> Tensor:
    """The denoiser's output [B, C, H, W] for latents of that shape, timesteps [B] or one for all, and conditioning
    [B, tokens, width]."""
    return denoiser(latents, timesteps, encoder_hidden_states=conditioning, return_dict=False)[0]  # type: ignore[no-any-return]
