"""The stages of quantization and their options: what a method is made of, and what a recipe may change of it.

Every stage has interchangeable options, each a model with a `kind`, in the file of the stage's name; `null` in a
recipe's `[stages]` table, or leaving a stage out, means the option of the recipe's method."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, model_serializer

from contract.stages.bits import Bits, SensitiveBits, UniformBits
from contract.stages.bits_over_time import BitsOverTime, RelaxedInputs, RelaxedSteps, RelaxedWindow, SameBits
from contract.stages.fine_tuning import FineTuning, NoFineTuning, Tuning
from contract.stages.inputs import EveryStep, Inputs, LastSteps, NormalSteps, Tdac, UniformSteps
from contract.stages.option import Choice, Option, Setting
from contract.stages.output_correction import NoCorrection, OutputCorrection, Ptqd
from contract.stages.ranges import LearnedRanges, ObservedRanges, ProgressiveRanges, Ranges
from contract.stages.rounding import AdaRound, FineGrained, Nearest, Rounding
from contract.stages.time_path import Keep, PerRequest, Precalculate, Tiar, TimePath
from contract.stages.weight_scales import WeightScales

__all__ = [
    "ORDER",
    "AdaRound",
    "EveryStep",
    "FineGrained",
    "FineTuning",
    "Keep",
    "LastSteps",
    "LearnedRanges",
    "Nearest",
    "NoCorrection",
    "NoFineTuning",
    "NormalSteps",
    "ObservedRanges",
    "Option",
    "PerRequest",
    "Precalculate",
    "ProgressiveRanges",
    "Ptqd",
    "RelaxedInputs",
    "RelaxedSteps",
    "RelaxedWindow",
    "SameBits",
    "SensitiveBits",
    "Setting",
    "StageOptions",
    "Stages",
    "Tdac",
    "Tiar",
    "UniformBits",
    "UniformSteps",
    "WeightScales",
    "kinds",
]


class StageOptions(BaseModel):
    """A recipe's own choice of stages, in the order in which they run; None is the method's. Written out, options hold
    what was given and no defaults: where the kind is the method's, the rest is the method's as well."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    inputs: Annotated[Inputs, Choice] | None = None
    bits: Annotated[Bits, Choice] | None = None
    weight_scales: WeightScales | None = None
    time_path: Annotated[TimePath, Choice] | None = None
    bits_over_time: Annotated[BitsOverTime, Choice] | None = None
    rounding: Annotated[Rounding, Choice] | None = None
    ranges: Annotated[Ranges, Choice] | None = None
    fine_tuning: Annotated[Tuning, Choice] | None = None
    output_correction: Annotated[OutputCorrection, Choice] | None = None

    @model_serializer
    def as_given(self) -> dict[str, dict[str, Any]]:
        """The options that were chosen, each with its kind and the fields that were set."""
        return {
            stage: {"kind": option.kind} | option.model_dump(exclude_unset=True)
            for stage, option in self
            if option is not None
        }


ORDER = tuple(StageOptions.model_fields)
"""The stages by name, in the order in which they run."""


class Stages(BaseModel):
    """All stages of a method. `split_shortcuts` and `per_step` (a table row for every step of the sampler) are what a
    recipe that does not say gets."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    inputs: Annotated[Inputs, Choice] = EveryStep()
    bits: Annotated[Bits, Choice] = UniformBits()
    weight_scales: WeightScales = WeightScales()
    time_path: Annotated[TimePath, Choice] = Keep()
    bits_over_time: Annotated[BitsOverTime, Choice] = SameBits()
    rounding: Annotated[Rounding, Choice] = Nearest()
    ranges: Annotated[Ranges, Choice] = ObservedRanges()
    fine_tuning: Annotated[Tuning, Choice] = NoFineTuning()
    output_correction: Annotated[OutputCorrection, Choice] = NoCorrection()
    split_shortcuts: bool = False
    per_step: bool = False

    def changed(self, own: StageOptions) -> Stages:
        """These stages with a recipe's own choices. An option of the kind that the method has keeps what the recipe
        does not name. Raises ValueError (pydantic's) when they contradict each other."""
        mine = self.model_dump()
        for stage, option in own.as_given().items():
            mine[stage] = mine[stage] | option if mine[stage]["kind"] == option["kind"] else option
        return Stages.model_validate(mine)

    def options(self) -> dict[str, Option]:
        """The chosen option of every stage, in the order in which they run."""
        return {stage: getattr(self, stage) for stage in ORDER}


def kinds(stage: str) -> tuple[str, ...]:
    """The kinds of option that a stage of ORDER has."""
    annotation = Stages.model_fields[stage].annotation
    options: tuple[type[Option], ...] = get_args(annotation) or (annotation,)
    return tuple(kind for option in options for kind in get_args(option.model_fields["kind"].annotation))
