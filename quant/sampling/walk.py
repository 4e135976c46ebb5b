"""A batch of pictures on its way through the sampler, one step at a time: where calibration looks and intervenes."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from quant.discovery import family_of
from quant.sampling.generation import Sampling, initial_noise

Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Latents [B, C, H, W], timesteps [B] and conditioning [B, tokens, width] to an output like the latents."""


@dataclass(frozen=True)
class State:
    """What a denoiser sees at one step: for N pictures and their guidance branches (one or two), `latents` float32
    [N, C, H, W] already scaled for the model, the timestep, and `conditioning` [N, branches, tokens, width]."""

    latents: Tensor
    timestep: Tensor
    conditioning: Tensor

    @property
    def rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """The arguments of a call for all branches: first of all pictures without the prompt, then with it."""
        branches = self.conditioning.shape[1]
        latents = torch.cat([self.latents] * branches)
        return latents, self.timestep.expand(len(latents)), self.conditioning.transpose(0, 1).flatten(0, 1)


class Walk:
    """Deterministic samplers only: a step recomputed from the same latents gives the same latents."""

    def __init__(self, pipeline: DiffusionPipeline, prompts: list[str], seeds: list[int], sampling: Sampling) -> None:
        family = family_of(pipeline)
        self.guidance_scale = sampling.guidance_scale
        self.conditioning: Tensor = family.conditioning(family.encode_prompts(pipeline, prompts, sampling))
        self.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
        self._steps = sampling.num_inference_steps
        self.scheduler.set_timesteps(self._steps)
        shrink = pipeline.vae_scale_factor
        channels = pipeline.components[family.DENOISER].config.in_channels
        size = sampling.height // shrink, sampling.width // shrink
        noise, generators = initial_noise(channels, *size, seeds)
        self.start: Tensor = noise * self.scheduler.init_noise_sigma
        self.latents = self.start
        accepted = inspect.signature(self.scheduler.step).parameters
        self._extra = {"generator": generators} if "generator" in accepted else {}
        self.step = 0

    def again(self) -> Walk:
        """The same walk, at its start."""
        fresh = copy.copy(self)
        fresh.scheduler = type(self.scheduler).from_config(self.scheduler.config)
        fresh.scheduler.set_timesteps(self._steps)
        fresh.latents, fresh.step = self.start, 0
        return fresh

    def fork(self) -> Walk:
        """A walk of its own from where this one is."""
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
        return State(self.scheduler.scale_model_input(self.latents, timestep), timestep, self.conditioning)

    def guided(self, output: Tensor) -> Tensor:
        """The output that the sampler takes, [N, C, H, W], from those of all rows [branches N, C, H, W]."""
        if self.conditioning.shape[1] == 1:
            return output
        without, with_prompt = output.chunk(2)
        return without + self.guidance_scale * (with_prompt - without)

    def advance(self, output: Tensor) -> None:
        """Takes the coming step with the denoiser's output for all rows."""
        timestep = self.scheduler.timesteps[self.step]
        guided = self.guided(output.float())
        self.latents = self.scheduler.step(guided, timestep, self.latents, **self._extra, return_dict=False)[0]
        self.step += 1


def denoise_with(pipeline: DiffusionPipeline, denoiser: nn.Module) -> Denoise:
    """A call of `denoiser`, which stands in for the pipeline's own."""
    call = family_of(pipeline).call_denoiser
    return lambda latents, timesteps, conditioning: call(denoiser, latents, timesteps, conditioning)
