"""Families: how pipelines are asked, drawn with and decoded, one kind of pipeline per file.

The file's name is the family's name, and its `FAMILY` what the rest of the library knows of it. How a denoiser is built
is another question (`quant.anatomies`): several families share one class of denoisers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from quant.conditioning import Conditioning, Rows
from quant.errors import ModelError

if TYPE_CHECKING:
    from quant.sampling.request import Asked, Sampling


class Family(ABC):
    """What differs between pipelines; the defaults are those of latent diffusion by a UNet that predicts noise."""

    pipelines: ClassVar[tuple[type[DiffusionPipeline], ...]]
    """The classes of diffusers that belong to the family."""

    denoiser: ClassVar[str] = "unet"
    """The component that is quantized."""

    left_out: ClassVar[tuple[str, ...]] = ()
    """Components that drawing does without and that are not loaded."""

    asked: ClassVar[Literal["text", "nothing"]] = "text"
    """What a picture is asked with."""

    samplers: ClassVar[Literal["noise", "flow", "own"]] = "noise"
    """Which samplers fit: those for noise, those for a rectified flow, or the pipeline's own only."""

    def check(self, pipeline: Any) -> None:
        """Raises ModelError for a pipeline whose parts make something else than pictures of this family."""
        takes, draws = pipeline.components[self.denoiser].config.in_channels, pipeline.vae.config.latent_channels
        if takes != draws:
            kind = {9: "an inpainting model", 8: "an editing model", 5: "a model guided by depth"}.get(takes)
            raise ModelError(
                f"the denoiser takes {takes} channels and the autoencoder gives {draws}: {kind or 'another model'}, "
                "not served"
            )

    def tokens(self, pipeline: Any, prompt: str) -> dict[str, tuple[int, int]]:
        """How many tokens of a prompt each text encoder takes and how many it drops, by the encoder's name."""
        return {}

    @abstractmethod
    def condition(self, pipeline: Any, asked: Sequence[Asked], sampling: Sampling) -> Conditioning:
        """The conditioning of one picture for each of `asked`, on the pipeline's device."""

    def prediction(self, pipeline: Any) -> str:
        """What the denoiser's output is: epsilon, v_prediction, sample or flow."""
        return str(pipeline.scheduler.config.prediction_type)

    def guides(self, sampling: Sampling) -> bool:
        """Whether there is a second branch."""
        return sampling.guidance_scale > 1.0

    def multiple_of(self, pipeline: Any) -> int:
        """What sizes in pixels are multiples of: whole latents, and 8 as diffusers has it."""
        return math.lcm(8, int(pipeline.vae_scale_factor))

    def fixed_size(self, pipeline: Any) -> tuple[int, int] | None:
        """Width and height, where all pictures have the same."""
        return None

    def latent_shape(self, pipeline: Any, sampling: Sampling) -> tuple[int, ...]:
        """The shape [C, H, W] of one picture's noise."""
        shrink = pipeline.vae_scale_factor
        channels = pipeline.components[self.denoiser].config.in_channels
        return channels, sampling.height // shrink, sampling.width // shrink

    def begin(self, pipeline: Any, scheduler: Any, sampling: Sampling) -> None:
        """Gives a scheduler the timesteps of a request."""
        scheduler.set_timesteps(sampling.num_inference_steps, device=pipeline.device)

    def call(self, denoiser: nn.Module, latents: Tensor, timesteps: Tensor, rows: Rows) -> Tensor:
        """The denoiser's output, like `latents` [M, ...], at timesteps [M] or one for all, under `rows` of as many."""
        return denoiser(latents, timestep=timesteps, **rows.tensors, return_dict=False)[0]  # type: ignore[no-any-return]

    @torch.no_grad()
    def decode(self, pipeline: Any, latents: Tensor) -> Tensor:
        """Pictures float32 [N, 3, H, W], about -1 to 1, of what the sampler left."""
        vae = pipeline.vae
        scaled = latents / vae.config.scaling_factor + (getattr(vae.config, "shift_factor", None) or 0.0)
        return vae.decode(scaled.to(vae.dtype)).sample.float()  # type: ignore[no-any-return]


def token_counts(tokenizer: Any, prompt: str, room: int | None = None) -> tuple[int, int]:
    """How many tokens of a prompt are taken and how many dropped, special ones not counted, where `room` tokens fit
    (the tokenizer's own length unless given)."""
    count = len(tokenizer(prompt, add_special_tokens=False, truncation=False).input_ids)
    fits = (room or tokenizer.model_max_length) - tokenizer.num_special_tokens_to_add()
    return min(count, fits), max(count - fits, 0)
