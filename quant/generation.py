"""From a prompt and a seed to pictures. Noise is drawn on the CPU, one generator per picture, whatever the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor

from quant.errors import InvalidPicture, SamplingError
from quant.registry import family_of

_SCHEDULER_CLASSES = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "dpm++2m": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-ancestral": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "pndm": "PNDMScheduler",
    "unipc": "UniPCMultistepScheduler",
}
SCHEDULERS = tuple(_SCHEDULER_CLASSES)
"""Samplers that a request can ask for; without one the model's own is used."""

SEEDS = 2**32
"""Seeds are 0 to this, exclusive; picture i of a request has seed (seed + i) modulo this."""

OnStep = Callable[[int, int], None]
"""Called after every step with (steps done, steps in all); what it raises ends the generation."""


@dataclass(frozen=True)
class Sampling:
    """One request: everything that fixes the pictures besides the model."""

    prompt: str
    negative_prompt: str = ""
    seed: int = 0
    num_inference_steps: int = 25
    guidance_scale: float = 4.0
    width: int = 128
    height: int = 128
    num_images: int = 1
    scheduler: str | None = None

    @property
    def seeds(self) -> list[int]:
        """The seed of every picture."""
        return [(self.seed + i) % SEEDS for i in range(self.num_images)]


@dataclass(frozen=True)
class Generation:
    """Pictures, the latents they were decoded from (float32 [N, C, H / 8, W / 8], scaled), the decoded values
    (float32 [N, 3, H, W] in [0, 1]), and the seconds of each stage (encode, denoise, decode)."""

    pictures: list[Image.Image]
    latents: Tensor
    values: Tensor
    seconds: dict[str, float] = field(default_factory=dict)


def initial_noise(channels: int, height: int, width: int, seeds: list[int]) -> tuple[Tensor, list[torch.Generator]]:
    """Standard normal latents, float32 [N, channels, height, width], and the generators they came from, which go on to
    feed samplers that add noise. A picture's noise depends on its seed and size only."""
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    noise = [torch.randn((1, channels, height, width), generator=generator) for generator in generators]
    return torch.cat(noise), generators


def generate(pipeline: DiffusionPipeline, sampling: Sampling, on_step: OnStep | None = None) -> Generation:
    """The pictures of one request.

    Raises SamplingError for settings that the sampler refuses, InvalidPicture when the output is not finite or one
    flat colour, and whatever `on_step` raises."""
    return generate_batch(pipeline, [sampling.prompt] * sampling.num_images, sampling.seeds, sampling, on_step)


def generate_batch(
    pipeline: DiffusionPipeline,
    prompts: list[str],
    seeds: list[int],
    sampling: Sampling,
    on_step: OnStep | None = None,
) -> Generation:
    """As `generate`, one picture per prompt and seed, all in one batch; the other settings are those of `sampling`."""
    clock = _Clock()
    context = family_of(pipeline).encode_prompts(pipeline, prompts, sampling)
    clock.lap("encode")
    latents = _denoise(pipeline, context, seeds, sampling, on_step)
    clock.lap("denoise")
    values = decode(pipeline, latents)
    _check(latents, values)
    pictures = pipeline.image_processor.numpy_to_pil(values.permute(0, 2, 3, 1).numpy())
    clock.lap("decode")
    return Generation(pictures, latents.float().cpu(), values, clock.seconds)


def denoise(pipeline: DiffusionPipeline, sampling: Sampling, on_step: OnStep | None = None) -> Tensor:
    """The latents of one request, float32 [N, C, H / 8, W / 8], without decoding them."""
    context = family_of(pipeline).encode_prompts(pipeline, [sampling.prompt] * sampling.num_images, sampling)
    return _denoise(pipeline, context, sampling.seeds, sampling, on_step)


@torch.no_grad()
def decode(pipeline: DiffusionPipeline, latents: Tensor) -> Tensor:
    """Pictures float32 [N, 3, H, W] in [0, 1] of scaled latents."""
    vae = pipeline.vae
    decoded = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample
    return (decoded.float().cpu() / 2 + 0.5).clamp(0.0, 1.0)


@torch.no_grad()
def _denoise(
    pipeline: DiffusionPipeline, context: dict[str, Any], seeds: list[int], sampling: Sampling, on_step: OnStep | None
) -> Tensor:
    shrink = pipeline.vae_scale_factor
    height, width = sampling.height // shrink, sampling.width // shrink
    noise, generators = initial_noise(pipeline.unet.config.in_channels, height, width, seeds)

    def after_step(_: DiffusionPipeline, step: int, __: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if on_step is not None:
            on_step(step + 1, pipeline.num_timesteps)
        return tensors

    with _scheduler(pipeline, sampling.scheduler):
        try:
            latents: Tensor = pipeline(
                **context,
                latents=noise.to(context["prompt_embeds"].dtype),
                generator=generators,
                num_inference_steps=sampling.num_inference_steps,
                guidance_scale=sampling.guidance_scale,
                width=sampling.width,
                height=sampling.height,
                callback_on_step_end=after_step,
                output_type="latent",
            ).images
        except ValueError as error:
            raise SamplingError(f"the sampler refuses these settings: {error}") from error
    return latents


@contextmanager
def _scheduler(pipeline: DiffusionPipeline, name: str | None) -> Iterator[None]:
    """A fresh scheduler for one request, since schedulers keep state; the pipeline's own comes back afterwards."""
    own = pipeline.scheduler
    if name is not None and name not in _SCHEDULER_CLASSES:
        raise SamplingError(f"scheduler {name!r} is not one of {', '.join(SCHEDULERS)}")
    kind = type(own) if name is None else getattr(diffusers, _SCHEDULER_CLASSES[name])
    pipeline.scheduler = kind.from_config(own.config)
    try:
        yield
    finally:
        pipeline.scheduler = own


def _check(latents: Tensor, values: Tensor) -> None:
    for i in range(len(latents)):
        if not bool(latents[i].isfinite().all()) or not bool(values[i].isfinite().all()):
            raise InvalidPicture(f"picture {i} holds values that are not finite")
        if values[i].flatten(1).std(dim=1).max().item() < 1e-3:
            raise InvalidPicture(f"picture {i} is one flat colour")


class _Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now
