"""`bits_over_time`: the bits of activations over the steps of the sampler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, model_validator

from contract.stages.option import Fraction, Option, RelaxedBits, Setting


class SameBits(Option):
    """Activations have the recipe's bits at all steps."""

    kind: Literal["same"] = "same"


class Relaxed(Option):
    """More `bits` somewhere along the way."""

    bits: RelaxedBits = 16

    def faults(self, setting: Setting) -> Iterator[str]:
        if self.bits < setting.activation_bits:
            yield f"relaxed steps have {self.bits} bits, fewer than activation_bits {setting.activation_bits}"
        if setting.groups != setting.steps:
            yield "relaxed steps need a range for every step: leave timestep_groups out, with a method that has one"


class RelaxedWindow(Relaxed):
    """More activation bits in the steps from `start` to `end`, both included, as fractions of all steps (PCR)."""

    kind: Literal["window"] = "window"
    start: Fraction
    end: Fraction

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.start >= self.end:
            raise ValueError(f"a window from {self.start} to {self.end} holds no step: start must be below end")
        return self


class RelaxedSteps(Relaxed):
    """As a window, where it lowers the error most: windows of `width` of all steps are tried one by one."""

    kind: Literal["automatic"] = "automatic"
    width: float = Field(default=0.1, gt=0.0, le=1.0, allow_inf_nan=False)
    prompts: int = Field(default=8, ge=1, le=64)


class RelaxedInputs(Relaxed):
    """More bits for the inputs of single layers at single steps, the `share` of all of them that the picture notices
    most, measured on `prompts` trajectories."""

    kind: Literal["sensitive"] = "sensitive"
    share: float = Field(default=0.01, gt=0.0, le=1.0, allow_inf_nan=False)
    prompts: int = Field(default=4, ge=1, le=64)


BitsOverTime = SameBits | RelaxedWindow | RelaxedSteps | RelaxedInputs
