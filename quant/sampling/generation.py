"""From a prompt and a seed to pictures. Noise is drawn on the CPU, one generator per picture, whatever the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor

from quant.discovery import family_of
from quant.errors import InvalidPicture, SamplingError
from quant.sampling.seeds import SEEDS
from quant.sampling.translation import of_drawing

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

    @property
    def settings(self) -> dict[str, Any]:
        """What the pictures of many prompts share: all but prompt, seed and how many there are."""
        return {name: value for name, value in asdict(self).items() if name not in ("prompt", "seed", "num_images")}


@dataclass(frozen=True)
class Drawn:
    """What a pipeline made of a batch: the latents after every step (float32 [N, steps, C, H / 8, W / 8], scaled), the
    decoded values (float32 [N, 3, H, W] in [0, 1]), and the seconds of each stage (encode, denoise, decode)."""

    trajectory: Tensor
    values: Tensor
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def latents(self) -> Tensor:
        """The final latents, float32 [N, C, H / 8, W / 8]."""
        return self.trajectory[:, -1]

    @property
    def faults(self) -> list[str | None]:
        """What is wrong with each picture: it is not finite, or one flat colour; None for one that is a picture."""
        return [_fault(latents, values) for latents, values in zip(self.latents, self.values, strict=True)]


@dataclass(frozen=True)
class Generation(Drawn):
    """A batch as pictures."""

    pictures: list[Image.Image] = field(default_factory=list)


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
    drawn = draw(pipeline, prompts, seeds, sampling, on_step)
    for index, fault in enumerate(drawn.faults):
        if fault is not None:
            raise InvalidPicture(f"picture {index} {fault}")
    return Generation(drawn.trajectory, drawn.values, drawn.seconds, to_pictures(drawn.values))


def draw(
    pipeline: DiffusionPipeline,
    prompts: list[str],
    seeds: list[int],
    sampling: Sampling,
    on_step: OnStep | None = None,
) -> Drawn:
    """As `generate_batch`, whatever comes out: the pictures are not checked."""
    clock = _Clock()
    context = _encoded(pipeline, prompts, sampling)
    clock.lap("encode")
    trajectory = _denoise(pipeline, context, seeds, sampling, on_step)
    clock.lap("denoise")
    values = decode(pipeline, trajectory[-1])
    clock.lap("decode")
    return Drawn(torch.stack(trajectory, dim=1).float().cpu(), values, clock.seconds)


def denoise(pipeline: DiffusionPipeline, sampling: Sampling, on_step: OnStep | None = None) -> Tensor:
    """The latents of one request, float32 [N, C, H / 8, W / 8], without decoding them."""
    context = _encoded(pipeline, [sampling.prompt] * sampling.num_images, sampling)
    return _denoise(pipeline, context, sampling.seeds, sampling, on_step)[-1]


def to_pictures(values: Tensor) -> list[Image.Image]:
    """Pictures of 8 bits of values [N, 3, H, W] in [0, 1]."""
    return [Image.fromarray(array) for array in (values.permute(0, 2, 3, 1) * 255.0).round().byte().numpy()]


@torch.no_grad()
def decode(pipeline: DiffusionPipeline, latents: Tensor) -> Tensor:
    """Pictures float32 [N, 3, H, W] in [0, 1] of scaled latents."""
    vae = pipeline.vae
    decoded = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample
    return (decoded.float().cpu() / 2 + 0.5).clamp(0.0, 1.0)


def _encoded(pipeline: DiffusionPipeline, prompts: list[str], sampling: Sampling) -> dict[str, Any]:
    try:
        return family_of(pipeline).encode_prompts(pipeline, prompts, sampling)  # type: ignore[no-any-return]
    except Exception as error:
        found = of_drawing(error, sampling, "")
        if found is error:
            raise
        raise found from error


@torch.no_grad()
def _denoise(
    pipeline: DiffusionPipeline, context: dict[str, Any], seeds: list[int], sampling: Sampling, on_step: OnStep | None
) -> list[Tensor]:
    """The latents after every step."""
    shrink = pipeline.vae_scale_factor
    height, width = sampling.height // shrink, sampling.width // shrink
    noise, generators = initial_noise(pipeline.unet.config.in_channels, height, width, seeds)
    trajectory: list[Tensor] = []
    stops: list[Exception] = []

    def after_step(_: DiffusionPipeline, step: int, __: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        trajectory.append(tensors["latents"].clone())
        try:
            if on_step is not None:
                on_step(step + 1, pipeline.num_timesteps)
        except Exception as stop:
            stops.append(stop)
            raise
        return tensors

    with _scheduler(pipeline, sampling.scheduler):
        try:
            pipeline(
                **context,
                latents=noise.to(context["prompt_embeds"].dtype),
                generator=generators,
                num_inference_steps=sampling.num_inference_steps,
                guidance_scale=sampling.guidance_scale,
                width=sampling.width,
                height=sampling.height,
                callback_on_step_end=after_step,
                output_type="latent",
            )
        except Exception as error:  # each library raises its own kinds
            if error in stops:
                raise
            found = of_drawing(error, sampling, sampling.scheduler or type(pipeline.scheduler).__name__)
            if found is error:
                raise
            raise found from error
    return trajectory


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


def _fault(latents: Tensor, values: Tensor) -> str | None:
    if not bool(latents.isfinite().all()) or not bool(values.isfinite().all()):
        return "holds values that are not finite"
    return "is one flat colour" if values.flatten(1).std(dim=1).max().item() < 1e-3 else None


class _Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now
