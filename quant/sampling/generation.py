"""From what is asked and a seed to pictures. Noise is drawn on the CPU, one generator per picture, whatever the
device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor

from quant.discovery import family_of
from quant.errors import InvalidPicture, SamplingError
from quant.sampling.request import Asked, Sampling
from quant.sampling.translation import of_drawing
from quant.sampling.walk import Walk, denoise_with

OnStep = Callable[[int, int], None]
"""Called after every step with (steps done, steps in all); what it raises ends the generation."""


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


def generate(pipeline: DiffusionPipeline, sampling: Sampling, on_step: OnStep | None = None) -> Generation:
    """The pictures of one request.

    Raises SamplingError for settings that the sampler refuses, InvalidPicture when the output is not finite or one
    flat colour, and whatever `on_step` raises."""
    return generate_batch(pipeline, [sampling.prompt] * sampling.num_images, sampling.seeds, sampling, on_step)


def generate_batch(
    pipeline: DiffusionPipeline,
    asked: Sequence[Asked],
    seeds: Sequence[int],
    sampling: Sampling,
    on_step: OnStep | None = None,
) -> Generation:
    """As `generate`, one picture for what is asked and its seed, all in one batch; the other settings are those of
    `sampling`."""
    drawn = draw(pipeline, asked, seeds, sampling, on_step)
    refuse_faults(drawn)
    return Generation(drawn.trajectory, drawn.values, drawn.seconds, to_pictures(drawn.values))


def refuse_faults(drawn: Drawn) -> None:
    """Raises InvalidPicture, with what is wrong, for the first of a batch that is no picture."""
    for index, fault in enumerate(drawn.faults):
        if fault is not None:
            raise InvalidPicture(f"picture {index} {fault}")


def draw(
    pipeline: DiffusionPipeline,
    asked: Sequence[Asked],
    seeds: Sequence[int],
    sampling: Sampling,
    on_step: OnStep | None = None,
) -> Drawn:
    """As `generate_batch`, whatever comes out: the pictures are not checked."""
    clock = _Clock()
    walk = _encoded(pipeline, asked, seeds, sampling)
    clock.lap("encode")
    trajectory = _walked(pipeline, walk, sampling, on_step)
    clock.lap("denoise")
    values = decode(pipeline, trajectory[-1])
    clock.lap("decode")
    return Drawn(torch.stack(trajectory, dim=1).float().cpu(), values, clock.seconds)


def denoise(pipeline: DiffusionPipeline, sampling: Sampling, on_step: OnStep | None = None) -> Tensor:
    """The latents of one request, float32 [N, C, H / 8, W / 8], without decoding them."""
    walk = _encoded(pipeline, [sampling.prompt] * sampling.num_images, sampling.seeds, sampling)
    return _walked(pipeline, walk, sampling, on_step)[-1]


def decode(pipeline: DiffusionPipeline, latents: Tensor) -> Tensor:
    """Pictures float32 [N, 3, H, W] in [0, 1] of what a walk left."""
    return (family_of(pipeline).decode(pipeline, latents).cpu() / 2 + 0.5).clamp(0.0, 1.0)


def to_pictures(values: Tensor) -> list[Image.Image]:
    """Pictures of 8 bits of values [N, 3, H, W] in [0, 1]."""
    return [Image.fromarray(array) for array in (values.permute(0, 2, 3, 1) * 255.0).round().byte().numpy()]


def _encoded(pipeline: DiffusionPipeline, asked: Sequence[Asked], seeds: Sequence[int], sampling: Sampling) -> Walk:
    """The pictures at their start. Raises SamplingError for what this model does not take."""
    _check(pipeline, asked, sampling)
    with _in_our_words(pipeline, sampling):
        return Walk(pipeline, asked, seeds, sampling)


def _check(pipeline: DiffusionPipeline, asked: Sequence[Asked], sampling: Sampling) -> None:
    family = family_of(pipeline)
    if family.asked == "text" and None in asked:
        raise SamplingError("this model draws from a prompt, and there is none")
    if family.asked == "nothing" and any(each is not None for each in asked):
        raise SamplingError("this model takes no prompt: leave it out, the seed alone makes the picture")
    size, fixed, unit = (sampling.width, sampling.height), family.fixed_size(pipeline), family.multiple_of(pipeline)
    if fixed is not None and size != fixed:
        raise SamplingError(f"this model draws {fixed[0]} x {fixed[1]} pixels only, not {size[0]} x {size[1]}")
    if any(side % unit for side in size):
        raise SamplingError(f"width and height must be multiples of {unit}, not {size[0]} x {size[1]}")


@torch.no_grad()
def _walked(pipeline: DiffusionPipeline, walk: Walk, sampling: Sampling, on_step: OnStep | None) -> list[Tensor]:
    """The latents after every step."""
    denoise = denoise_with(pipeline, pipeline.components[family_of(pipeline).denoiser])
    trajectory: list[Tensor] = []
    while not walk.done:
        with _in_our_words(pipeline, sampling):
            walk.advance(denoise(*walk.state.rows))
        trajectory.append(walk.latents)
        if on_step is not None:
            on_step(walk.step, len(walk.timesteps))
    return trajectory


@contextmanager
def _in_our_words(pipeline: DiffusionPipeline, sampling: Sampling) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each library raises its own kinds
        found = of_drawing(error, sampling, sampling.scheduler or type(pipeline.scheduler).__name__)
        if found is error:
            raise
        raise found from error


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
