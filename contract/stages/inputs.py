"""`inputs`: which states of which trajectories weights and ranges are fitted to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from contract.stages.option import Fraction, Option, Setting, Weighting


class SampleChoice(Option):
    """A choice of (trajectory, step) pairs, of trajectories of the reference or of the quantized model as it is."""

    trajectory: Literal["reference", "quantized"] = "reference"

    def trajectories(self, available: int) -> int:
        """How many of the `available` trajectories it takes samples of."""
        return available

    def count(self, available: int, steps: int) -> int:
        """How many samples it takes of `available` trajectories over `steps` steps."""
        return available


class UniformSteps(SampleChoice):
    """A stride over the steps, the same prompts at each, all of them where there are fewer (Q-Diffusion, arXiv
    2302.04304)."""

    kind: Literal["uniform"] = "uniform"
    steps: int = Field(default=13, ge=1, le=1000)
    prompts_per_step: int = Field(default=20, ge=1, le=1024)

    def trajectories(self, available: int) -> int:
        return min(self.prompts_per_step, available)

    def count(self, available: int, steps: int) -> int:
        return self.steps * self.trajectories(available)

    def faults(self, setting: Setting) -> Iterator[str]:
        if self.steps > setting.steps:
            yield f"uniform inputs of {self.steps} steps: the sampler has {setting.steps}"


class NormalSteps(SampleChoice):
    """Timesteps drawn from a clipped normal distribution (PTQ4DM, arXiv 2211.15736)."""

    kind: Literal["normal"] = "normal"
    samples: int = Field(default=256, ge=1, le=100_000)
    mean: Fraction = 0.4
    std: Fraction = 0.4

    def count(self, available: int, steps: int) -> int:
        return self.samples


class Tdac(SampleChoice):
    """As many samples of each step as its features' density and diversity say (EDA-DM, arXiv 2401.04585): one of every
    prompt. Without a `density_radius` the median distance of two steps is taken."""

    kind: Literal["tdac"] = "tdac"
    diversity_weight: Weighting = 1.2
    density_radius: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)
    feature_prompts: int = Field(default=8, ge=1, le=64)

    def faults(self, setting: Setting) -> Iterator[str]:
        if setting.prompts < setting.steps:
            yield f"TDAC takes one sample of every prompt: {setting.prompts} prompts cannot cover {setting.steps} steps"


class EveryStep(SampleChoice):
    """All steps of `prompts` trajectories, or of as many as there are prompts."""

    kind: Literal["all"] = "all"
    prompts: int = Field(default=10, ge=1, le=1024)

    def trajectories(self, available: int) -> int:
        return min(self.prompts, available)

    def count(self, available: int, steps: int) -> int:
        return steps * self.trajectories(available)


class LastSteps(SampleChoice):
    """All prompts at the `steps` nearest to the picture: what a calibration set looks like that ignores time."""

    kind: Literal["last"] = "last"
    steps: int = Field(default=1, ge=1, le=1000)

    def count(self, available: int, steps: int) -> int:
        return self.steps * available


Inputs = UniformSteps | NormalSteps | Tdac | EveryStep | LastSteps
