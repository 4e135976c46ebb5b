"""What all options of stages have in common, and the numbers that they are made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

Iterations = Annotated[int, Field(ge=1, le=100_000)]
Batch = Annotated[int, Field(ge=1, le=1024)]
Rate = Annotated[float, Field(gt=0.0, le=10.0, allow_inf_nan=False)]
Weighting = Annotated[float, Field(ge=0.0, le=1000.0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]

RelaxedBits = Literal[2, 3, 4, 5, 6, 7, 8, 16]
"""Bits of activations at relaxed steps; 16 leaves them in floating point."""

Choice = Field(discriminator="kind")
"""Of fields that take one of several options: `kind` says which."""


@dataclass(frozen=True)
class Setting:
    """What the rest of a recipe says, as far as a stage's option may contradict it: how many prompts and sampler steps
    it calibrates on, `groups` of timesteps with ranges of their own, and the kind of its time path."""

    prompts: int
    steps: int
    guidance_scale: float
    activation_bits: int
    groups: int
    dynamic_activations: bool
    time_path: str


class Option(BaseModel):
    """One option of a stage."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    def faults(self, setting: Setting) -> Iterator[str]:
        """What this option contradicts in the rest of its recipe, in words; nothing where it goes with all."""
        yield from ()


def needs_ranges(setting: Setting) -> Iterator[str]:
    """The fault of an option that calibrates ranges of activations in a recipe that has none."""
    if setting.dynamic_activations:
        yield "dynamic_activations have no ranges to calibrate: only rounding to the nearest goes with them"


def needs_shared_ranges(setting: Setting) -> Iterator[str]:
    """The fault of an option that learns ranges where every step has its own."""
    if setting.groups != 1:
        yield f"learned ranges are shared by all steps: timestep_groups must be 1, not {setting.groups}"
