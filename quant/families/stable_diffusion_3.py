"""Stable Diffusion 3: a rectified flow by a transformer over text and picture, with two CLIP encoders and, if there is
one, a T5 encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from diffusers import StableDiffusion3Pipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift
from torch import Tensor

from quant.conditioning import Conditioning, branched
from quant.families import Family, token_counts

if TYPE_CHECKING:
    from quant.sampling.request import Asked, Sampling

_T5_TOKENS = 256
"""As many tokens as the pipeline gives the T5 encoder at most."""


class StableDiffusion3(Family):
    """Without a T5 encoder the pipeline puts zeros in the place of its text."""

    pipelines = (StableDiffusion3Pipeline,)
    denoiser = "transformer"
    left_out = ("image_encoder", "feature_extractor")
    samplers = "flow"

    def tokens(self, pipeline: Any, prompt: str) -> dict[str, tuple[int, int]]:
        """As of every family."""
        pairs = {"text_encoder": pipeline.tokenizer, "text_encoder_2": pipeline.tokenizer_2}
        counts = {name: token_counts(each, prompt) for name, each in pairs.items() if each is not None}
        if pipeline.tokenizer_3 is not None:
            counts["text_encoder_3"] = token_counts(pipeline.tokenizer_3, prompt, _t5_tokens(pipeline))
        return counts

    @torch.no_grad()
    def condition(self, pipeline: Any, asked: Sequence[Asked], sampling: Sampling) -> Conditioning:
        """As of every family: texts [N, branches, tokens, width] and pooled [N, branches, width]."""
        guided, prompts = self.guides(sampling), list(asked)
        text, no_text, pooled, no_pooled = pipeline.encode_prompt(
            prompts, prompts, prompts, device=pipeline.device, do_classifier_free_guidance=guided,
            negative_prompt=[sampling.negative_prompt] * len(prompts) if guided else None,
            max_sequence_length=_t5_tokens(pipeline),
        )  # fmt: skip
        parts: dict[str, tuple[Tensor | None, Tensor]] = {
            "encoder_hidden_states": (no_text if guided else None, text),
            "pooled_projections": (no_pooled if guided else None, pooled),
        }
        return branched(parts, len(prompts), sampling.guidance_scale)

    def prediction(self, pipeline: Any) -> str:
        """A flow's schedulers do not say it."""
        return "flow"

    def multiple_of(self, pipeline: Any) -> int:
        """As of every family: whole patches of latents."""
        return int(pipeline.vae_scale_factor * pipeline.transformer.config.patch_size)

    def begin(self, pipeline: Any, scheduler: Any, sampling: Sampling) -> None:
        """As of every family; where the schedule is shifted by the picture's size, by as much as the pipeline does."""
        config, extra = scheduler.config, {}
        if config.get("use_dynamic_shifting", None):
            _, height, width = self.latent_shape(pipeline, sampling)
            patch = pipeline.transformer.config.patch_size
            extra["mu"] = calculate_shift(
                (height // patch) * (width // patch),
                config.get("base_image_seq_len", 256),
                config.get("max_image_seq_len", 4096),
                config.get("base_shift", 0.5),
                config.get("max_shift", 1.16),
            )
        scheduler.set_timesteps(sampling.num_inference_steps, device=pipeline.device, **extra)


def _t5_tokens(pipeline: Any) -> int:
    """At most what the tokenizer takes: a small T5 does not want 256 tokens, of which most are padding."""
    own = _T5_TOKENS if pipeline.tokenizer_3 is None else pipeline.tokenizer_3.model_max_length
    return min(int(own), _T5_TOKENS)


FAMILY = StableDiffusion3()
