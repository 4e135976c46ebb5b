"""`ranges`: the ranges of activations, shared by all steps or one for every step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from contract.stages.option import Batch, Iterations, Option, Rate, Setting, needs_ranges, needs_shared_ranges

_PROMPTS_PER_STEP = 16
"""Trajectories that a table with a row for every step is observed on."""

Observer = Literal["minmax", "ema", "mse"]
"""How a range is made of the values that were seen."""


class ObservedRanges(Option):
    """Ranges of activations as seen over the calibration set: of the reference, or of the model with its weights
    quantized."""

    kind: Observer = "minmax"
    observed: Literal["reference", "quantized_weights"] = "reference"

    def trajectories(self, available: int, groups: int) -> int:
        """How many of the `available` trajectories are observed, where `groups` of timesteps have ranges of their
        own."""
        return min(_PROMPTS_PER_STEP, available) if groups > 1 else 1


class LearnedRanges(Option):
    """Observed ranges (by least error), then learned unit by unit (LSQ, arXiv 1902.08153)."""

    kind: Literal["lsq"] = "lsq"
    iterations: Iterations = 150
    batch: Batch = 32
    learning_rate: Rate = 4e-3

    def trajectories(self, available: int, groups: int) -> int:
        """As `ObservedRanges.trajectories`."""
        return ObservedRanges().trajectories(available, groups)

    def faults(self, setting: Setting) -> Iterator[str]:
        yield from needs_shared_ranges(setting)
        yield from needs_ranges(setting)


class ProgressiveRanges(Option):
    """A range for every step, observed while all earlier steps are quantized already (PCR, arXiv 2311.06322), `passes`
    times a step."""

    kind: Literal["progressive"] = "progressive"
    observer: Observer = "minmax"
    prompts: int = Field(default=32, ge=1, le=1024)
    passes: int = Field(default=1, ge=1, le=8)

    def trajectories(self, available: int, groups: int) -> int:
        """As `ObservedRanges.trajectories`."""
        return min(self.prompts, available)

    def faults(self, setting: Setting) -> Iterator[str]:
        if setting.groups != setting.steps:
            yield f"progressive ranges are one for every step: timestep_groups must be {setting.steps} or left out"
        yield from needs_ranges(setting)


Ranges = ObservedRanges | LearnedRanges | ProgressiveRanges
