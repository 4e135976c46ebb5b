"""A batch of pictures on its way through the sampler, one step at a time: how everything is drawn, and where
calibration looks and intervenes."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from quant.conditioning import Conditioning, Rows, guide
from quant.discovery import family_of
from quant.sampling.request import Asked, Sampling
from quant.sampling.schedulers import new_scheduler

Denoise = Callable[[Tensor, Tensor, Rows], Tensor]
"""Latents [M, ...], timesteps [M] and rows of as many to an output like the latents."""


@dataclass(frozen=True)
class State:
    """What a denoiser sees at one step: for N pictures `latents` float32 [N, ...], already scaled for the model, the
    timestep, and their conditioning."""

    latents: Tensor
    timestep: Tensor
    conditioning: Conditioning

    @property
    def rows(self) -> tuple[Tensor, Tensor, Rows]:
        """The arguments of a call for all branches: first of all pictures without the condition, then with it."""
        latents = torch.cat([self.latents] * self.conditioning.branches)
        return latents, self.timestep.expand(len(latents)), self.conditioning.by_branch


def initial_noise(shape: tuple[int, ...], seeds: Sequence[int]) -> tuple[Tensor, list[torch.Generator]]:
    """Standard normal latents, float32 [N, *shape], and the generators they came from, which go on to feed samplers
    that add noise. A picture's noise depends on its seed and shape only, whatever the device."""
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    return torch.cat([torch.randn((1, *shape), generator=generator) for generator in generators]), generators


class Walk:
    """Latents stay in float32 on the pipeline's device, whatever the model computes in.

    `again` and `fork` are for deterministic samplers: there a step recomputed from the same latents gives the same
    latents."""

    def __init__(
        self, pipeline: DiffusionPipeline, asked: Sequence[Asked], seeds: Sequence[int], sampling: Sampling
    ) -> None:
        self._pipeline, self._sampling = pipeline, sampling
        family = family_of(pipeline)
        self.conditioning = family.condition(pipeline, asked, sampling)
        self.scheduler = self._new_scheduler()
        noise, generators = initial_noise(family.latent_shape(pipeline, sampling), seeds)
        self.start: Tensor = noise.to(pipeline.device) * getattr(self.scheduler, "init_noise_sigma", 1.0)
        self.latents = self.start
        accepted = inspect.signature(self.scheduler.step).parameters
        self._extra = {"generator": generators} if "generator" in accepted else {}
        self.step = 0

    def _new_scheduler(self) -> Any:
        scheduler = new_scheduler(self._pipeline, self._sampling.scheduler)
        family_of(self._pipeline).begin(self._pipeline, scheduler, self._sampling)
        return scheduler

    def again(self) -> Walk:
        """The same walk, at its start."""
        fresh = copy.copy(self)
        fresh.scheduler = self._new_scheduler()
        fresh.latents, fresh.step = self.start, 0
        return fresh

    def fork(self) -> Walk:
        """An independent walk that continues from here."""
        other = copy.copy(self)
        other.scheduler = copy.deepcopy(self.scheduler)
        return other

    @property
    def timesteps(self) -> list[float]:
        """The timestep of every step."""
        return [float(t) for t in self.scheduler.timesteps]

    @property
    def done(self) -> bool:
        """Whether the last step has been taken."""
        return self.step == len(self.scheduler.timesteps)

    @property
    def state(self) -> State:
        """What the denoiser sees at the coming step."""
        timestep = self.scheduler.timesteps[self.step]
        scale = getattr(self.scheduler, "scale_model_input", None)  # those for flows have none
        latents = self.latents if scale is None else scale(self.latents, timestep)
        return State(latents, timestep, self.conditioning)

    def guided(self, output: Tensor) -> Tensor:
        """The output that the sampler takes, [N, ...], from those of all rows [branches N, ...]."""
        return guide(output.unflatten(0, (self.conditioning.branches, -1)).transpose(0, 1), self.conditioning.scale)

    def advance(self, output: Tensor) -> None:
        """Takes the coming step with the denoiser's output for all rows."""
        timestep = self.scheduler.timesteps[self.step]
        guided = self.guided(output.float())
        self.latents = self.scheduler.step(guided, timestep, self.latents, **self._extra, return_dict=False)[0]
        self.step += 1


def denoise_with(pipeline: DiffusionPipeline, denoiser: Any) -> Denoise:
    """A call of `denoiser`, which stands in for the pipeline's own, in the dtype that it computes in."""
    call = family_of(pipeline).call

    def denoise(latents: Tensor, timesteps: Tensor, rows: Rows) -> Tensor:
        return call(denoiser, latents.to(denoiser.dtype), timesteps, rows)

    return denoise
