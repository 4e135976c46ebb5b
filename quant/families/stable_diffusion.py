"""Stable Diffusion 1 and 2: a CLIP text encoder, a UNet with cross-attention, an autoencoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

from quant.errors import ModelError

if TYPE_CHECKING:
    from quant.sampling.generation import Sampling

PIPELINE = StableDiffusionPipeline
"""The diffusers class of this family."""

DENOISER = "unet"
"""The component that is quantized."""


def check(pipeline: StableDiffusionPipeline) -> None:
    """Raises ModelError for a pipeline whose parts make something else than pictures from text and noise."""
    denoiser, decoder, encoder = (part.config for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder))
    takes, draws = denoiser.in_channels, decoder.latent_channels
    if takes != draws:
        kind = {9: "an inpainting model", 8: "an editing model", 5: "a model guided by depth"}.get(
            takes, "another model"
        )
        raise ModelError(f"the denoiser takes {takes} channels and the autoencoder gives {draws}: {kind}, not served")
    if denoiser.out_channels != draws:
        raise ModelError(f"the denoiser gives {denoiser.out_channels} channels, and the autoencoder takes {draws}")
    width = denoiser.cross_attention_dim
    if isinstance(width, int) and encoder.hidden_size != width:
        raise ModelError(f"the text encoder gives {encoder.hidden_size} features, and the denoiser takes {width}")
    if denoiser.addition_embed_type is not None:
        raise ModelError("the denoiser takes embeddings beside the text, as Stable Diffusion XL does: not this family")
    if len(pipeline.tokenizer) > encoder.vocab_size:
        raise ModelError(f"the tokenizer has {len(pipeline.tokenizer)} words, the text encoder {encoder.vocab_size}")


def prompt_tokens(pipeline: StableDiffusionPipeline, prompt: str) -> dict[str, tuple[int, int]]:
    """How many tokens of a prompt each text encoder takes and how many it drops, by the encoder's name."""
    tokenizer = pipeline.tokenizer
    count = len(tokenizer(prompt, add_special_tokens=False, truncation=False).input_ids)
    room = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
    return {"text_encoder": (min(count, room), max(0, count - room))}


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
