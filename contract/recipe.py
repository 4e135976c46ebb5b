"""A recipe: what to quantize and how. One TOML file per preset in `recipes/`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from contract.errors import RecipeError
from contract.faults import faults
from contract.identifier import IDENTIFIER_RULE, is_identifier
from contract.patterns import LAYERS, METHOD
from contract.sampling import Guidance, Seed
from contract.stages import (
    FineGrained,
    FineTuning,
    LearnedRanges,
    Nearest,
    NoFineTuning,
    ObservedRanges,
    ProgressiveRanges,
    SameBits,
    StageOptions,
    Stages,
    Tdac,
    UniformSteps,
)

Pattern = Annotated[str, Field(min_length=1, max_length=200, pattern=LAYERS)]


class CalibrationRun(BaseModel):
    """Which runs of the reference the quantization parameters are fixed on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_prompts: int = Field(default=32, ge=1, le=1024)
    num_inference_steps: int = Field(default=25, ge=1, le=1000)
    guidance_scale: Guidance = 4.0
    seed: Seed = 0


Bits = Annotated[int, Field(ge=2, le=8)]


class Recipe(BaseModel):
    """How a variant is made from its reference.

    `method` names a file in quant/methods, which says what is done at every stage; `stages` are this recipe's own
    choices in place of the method's. Weights have `weight_bits` (per output channel, symmetric), activations
    `activation_bits` (per tensor, static). Layers whose name matches a pattern of `keep_float` (fnmatch) stay in
    floating point, those of a role whatever the model calls them (`@input`, `@output`, `@time`); `layer_bits` gives the
    weights of others their own bits, the first pattern that matches counting. A `family` restricts the recipe to
    models of that family; without one it is for all.

    Options of the integer graph: `timestep_groups`, tables of activation scales over the sampler's steps, and
    `split_shortcuts`, two ranges for the concatenated inputs of a UNet's shortcut convolutions (None: as the method has
    it); `dynamic_activations`,
    a scale for every token in linear layers instead of a calibrated one; `attention_bits`, integer products of query,
    key and value, with `softmax_bits` for the softmax output; `packed`, weights of 4 bits or fewer packed in memory;
    `time_bits`, weights of the time path where it is kept to be looked up once a request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str = Field(pattern=METHOD)
    family: str | None = Field(default=None, pattern=METHOD)
    weight_bits: Bits = 8
    activation_bits: Bits = 8
    keep_float: tuple[Pattern, ...] = Field(default=(), max_length=256)
    layer_bits: dict[Pattern, Bits] = Field(default={}, max_length=256)
    timestep_groups: int | None = Field(default=None, ge=1, le=1000)
    split_shortcuts: bool | None = None
    dynamic_activations: bool = False
    attention_bits: Bits | None = None
    softmax_bits: Literal[2, 3, 4, 5, 6, 7, 8, 16] = 8
    packed: bool = False
    time_bits: Literal[4, 8] | None = Field(default=None, exclude_if=lambda bits: bits is None)
    calibration: CalibrationRun = CalibrationRun()
    stages: StageOptions = StageOptions()

    @property
    def scheme(self) -> str:
        """Bit-widths as an identifier, such as `w4a8`."""
        return f"w{self.weight_bits}a{self.activation_bits}"

    @property
    def variant(self) -> str:
        """The variant name that this recipe makes unless another is asked for, such as `w4a8-minmax`."""
        return f"{self.scheme}-{self.method.replace('_', '-')}"

    @model_validator(mode="after")
    def _options_agree(self) -> Self:
        if self.packed and self.weight_bits > 4 and not any(bits <= 4 for bits in self.layer_bits.values()):
            raise ValueError("packed is for weights of 4 bits or fewer: no layer has any")
        if (self.timestep_groups or 1) > self.calibration.num_inference_steps:
            raise ValueError(
                f"timestep_groups {self.timestep_groups} is more than the calibration's "
                f"{self.calibration.num_inference_steps} steps"
            )
        if self.attention_bits is None and self.softmax_bits != 8:
            raise ValueError("softmax_bits needs attention_bits: without them the softmax output is not quantized")
        return self

    def complete(self, method: Stages) -> Stages:
        """All stages, given those of the method. Raises RecipeError where options contradict each other."""
        try:
            stages = method.changed(self.stages)
        except ValidationError as error:
            raise RecipeError(f"stages: {faults(error)}") from error
        for fault in (*_range_faults(self, stages), *_input_faults(self, stages), *_training_faults(self, stages)):
            raise RecipeError(fault)
        return stages


def _range_faults(recipe: Recipe, stages: Stages) -> Iterator[str]:
    """What is wrong with ranges and bits over the steps."""
    groups, steps = recipe.timestep_groups, recipe.calibration.num_inference_steps
    shared = groups == 1 or (groups is None and not stages.per_step)
    learned = isinstance(stages.ranges, LearnedRanges) or (
        isinstance(stages.rounding, FineGrained) and stages.rounding.learn_ranges
    )
    if learned and not shared:
        yield f"learned ranges are shared by all steps: timestep_groups must be 1, not {groups or steps}"
    if isinstance(stages.ranges, ProgressiveRanges) and (shared or groups not in (None, steps)):
        yield f"progressive ranges are one for every step: timestep_groups must be {steps} or left out"
    relaxed = stages.bits_over_time
    if isinstance(relaxed, SameBits):
        return
    if relaxed.bits < recipe.activation_bits:
        yield f"relaxed steps have {relaxed.bits} bits, fewer than activation_bits {recipe.activation_bits}"
    if shared or groups not in (None, steps):
        yield "relaxed steps need a range for every step: leave timestep_groups out, with a method that has one"


def _input_faults(recipe: Recipe, stages: Stages) -> Iterator[str]:
    """What is wrong with the calibration inputs."""
    prompts, steps = recipe.calibration.num_prompts, recipe.calibration.num_inference_steps
    if isinstance(stages.inputs, Tdac) and prompts < steps:
        yield f"TDAC takes one sample of every prompt: {prompts} prompts cannot cover {steps} steps"
    if isinstance(stages.inputs, UniformSteps) and stages.inputs.steps > steps:
        yield f"uniform inputs of {stages.inputs.steps} steps: the sampler has {steps}"


def _training_faults(recipe: Recipe, stages: Stages) -> Iterator[str]:
    """What is wrong with the optimization of weights and scales."""
    trained = not isinstance(stages.rounding, Nearest) or not isinstance(stages.fine_tuning, NoFineTuning)
    if recipe.dynamic_activations and (trained or not isinstance(stages.ranges, ObservedRanges)):
        yield "dynamic_activations have no ranges to calibrate: only rounding to the nearest goes with them"
    tuning = stages.fine_tuning
    if not isinstance(tuning, FineTuning):
        return
    if tuning.target == "reference_trajectory" and tuning.kind != "serial_to_parallel":
        yield f"target reference_trajectory: {tuning.kind} fine-tuning is on the reference's trajectory already"
    if tuning.time_tables and stages.time_path.kind != "precalculate":
        yield "time_tables: there are none to train unless time_path is precalculate"
    if tuning.guided and recipe.calibration.guidance_scale <= 1.0:
        yield f"guided fine-tuning needs guidance: guidance_scale is {recipe.calibration.guidance_scale}"


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file. Raises RecipeError, naming the file and the fault."""
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise RecipeError(f"recipe {path}: {faults(error)}") from error


def read_presets(folder: Path) -> dict[str, Recipe]:
    """All presets of a folder by name (the file's name without .toml). Raises RecipeError on the first bad one."""
    presets = {path.stem: read_recipe(path) for path in sorted(folder.glob("*.toml"))}
    for name in presets:
        if not is_identifier(name):
            raise RecipeError(f"recipe {name!r}: a preset's name has {IDENTIFIER_RULE}")
    return presets
