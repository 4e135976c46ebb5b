"""Stable Diffusion XL 1.0: two CLIP text encoders, whose pooled text enters the UNet beside sizes and crops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor, nn

from quant.conditioning import Conditioning, Rows, branched
from quant.errors import ModelError
from quant.families import Family, token_counts

if TYPE_CHECKING:
    from quant.sampling.request import Asked, Sampling


class StableDiffusionXL(Family):
    """The picture's own size stands for the original and the target size, without a crop, as the pipeline has it.

    An empty negative prompt is none: the pipeline then takes zeros or the empty text, as the model's config says."""

    pipelines = (StableDiffusionXLPipeline,)
    left_out = ("image_encoder", "feature_extractor")

    def check(self, pipeline: Any) -> None:
        """As of every family."""
        super().check(pipeline)
        if pipeline.unet.config.addition_embed_type != "text_time":
            raise ModelError("the denoiser takes no pooled text and sizes beside the text: not Stable Diffusion XL")
        if pipeline.unet.config.time_cond_proj_dim is not None:
            raise ModelError("the denoiser takes the guidance scale as an embedding, as distilled models do")

    def tokens(self, pipeline: Any, prompt: str) -> dict[str, tuple[int, int]]:
        """As of every family."""
        pairs = {"text_encoder": pipeline.tokenizer, "text_encoder_2": pipeline.tokenizer_2}
        return {name: token_counts(tokenizer, prompt) for name, tokenizer in pairs.items() if tokenizer is not None}

    @torch.no_grad()
    def condition(self, pipeline: Any, asked: Sequence[Asked], sampling: Sampling) -> Conditioning:
        """As of every family: texts [N, branches, tokens, width], pooled texts [N, branches, width], sizes
        [N, branches, 6]."""
        guided, count = self.guides(sampling), len(asked)
        negative = [sampling.negative_prompt] * count if guided and sampling.negative_prompt else None
        text, no_text, pooled, no_pooled = pipeline.encode_prompt(
            list(asked), device=pipeline.device, do_classifier_free_guidance=guided, negative_prompt=negative
        )
        size = (sampling.height, sampling.width)
        width = (
            int(pooled.shape[-1]) if pipeline.text_encoder_2 is None else pipeline.text_encoder_2.config.projection_dim
        )
        ids = pipeline._get_add_time_ids(size, (0, 0), size, dtype=text.dtype, text_encoder_projection_dim=width)
        ids = ids.to(text.device).repeat(count, 1)
        parts: dict[str, tuple[Tensor | None, Tensor]] = {
            "encoder_hidden_states": (no_text if guided else None, text),
            "text_embeds": (no_pooled if guided else None, pooled),
            "time_ids": (ids if guided else None, ids),
        }
        return branched(parts, count, sampling.guidance_scale)

    def call(self, denoiser: nn.Module, latents: Tensor, timesteps: Tensor, rows: Rows) -> Tensor:
        """As of every family."""
        added = {name: rows.tensors[name] for name in ("text_embeds", "time_ids")}
        text = rows.tensors["encoder_hidden_states"]
        out: Tensor = denoiser(latents, timesteps, text, added_cond_kwargs=added, return_dict=False)[0]
        return out

    @torch.no_grad()
    def decode(self, pipeline: Any, latents: Tensor) -> Tensor:
        """As of every family. In float16 this autoencoder overflows, and computes in float32 where its config says so;
        newer ones have a mean and a deviation of their latents."""
        vae, config = pipeline.vae, pipeline.vae.config
        mean, deviation = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        if mean is not None and deviation is not None:
            means, deviations = (latents.new_tensor(each).view(1, -1, 1, 1) for each in (mean, deviation))
            scaled = latents * deviations / config.scaling_factor + means
        else:
            scaled = latents / config.scaling_factor
        overflows = vae.dtype == torch.float16 and config.force_upcast
        if not overflows:
            return vae.decode(scaled.to(vae.dtype)).sample.float()  # type: ignore[no-any-return]
        vae.to(torch.float32)
        try:
            return vae.decode(scaled.float()).sample  # type: ignore[no-any-return]
        finally:
            vae.to(torch.float16)


FAMILY = StableDiffusionXL()
