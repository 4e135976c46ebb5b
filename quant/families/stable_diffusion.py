"""Stable Diffusion 1 and 2: a CLIP text encoder, a UNet with cross-attention, an autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from diffusers import StableDiffusionPipeline

from quant.conditioning import Conditioning, branched
from quant.errors import ModelError
from quant.families import Family, token_counts

if TYPE_CHECKING:
    from quant.sampling.request import Asked, Sampling


class StableDiffusion(Family):
    """The safety checker of published models is left out: drawing does without, and variants are made of what draws."""

    pipelines = (StableDiffusionPipeline,)
    left_out = ("safety_checker", "feature_extractor")

    def check(self, pipeline: Any) -> None:
        """As of every family."""
        super().check(pipeline)
        denoiser, encoder = pipeline.unet.config, pipeline.text_encoder.config
        draws = pipeline.vae.config.latent_channels
        if denoiser.out_channels != draws:
            raise ModelError(f"the denoiser gives {denoiser.out_channels} channels, and the autoencoder takes {draws}")
        width = denoiser.cross_attention_dim
        if isinstance(width, int) and encoder.hidden_size != width:
            raise ModelError(f"the text encoder gives {encoder.hidden_size} features, and the denoiser takes {width}")
        if denoiser.addition_embed_type is not None:
            raise ModelError(
                "the denoiser takes embeddings beside the text, as Stable Diffusion XL does: not this family"
            )
        if len(pipeline.tokenizer) > encoder.vocab_size:
            raise ModelError(
                f"the tokenizer has {len(pipeline.tokenizer)} words, the text encoder {encoder.vocab_size}"
            )

    def tokens(self, pipeline: Any, prompt: str) -> dict[str, tuple[int, int]]:
        """As of every family."""
        return {"text_encoder": token_counts(pipeline.tokenizer, prompt)}

    @torch.no_grad()
    def condition(self, pipeline: Any, asked: Sequence[Asked], sampling: Sampling) -> Conditioning:
        """As of every family: embeddings [N, branches, tokens, width]."""
        guided = self.guides(sampling)
        negative = [sampling.negative_prompt] * len(asked) if guided else None
        with_prompt, without = pipeline.encode_prompt(list(asked), pipeline.device, 1, guided, negative)
        parts = {"encoder_hidden_states": (without if guided else None, with_prompt)}
        return branched(parts, len(asked), sampling.guidance_scale)


FAMILY = StableDiffusion()
