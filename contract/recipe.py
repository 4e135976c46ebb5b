"""A recipe: what to quantize and how. One TOML file per preset in `recipes/`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from contract.errors import RecipeError
from contract.faults import faults
from contract.identifier import IDENTIFIER_RULE, is_identifier
from contract.patterns import LAYERS, METHOD
from contract.sampling import Guidance, Seed
from contract.stages import Setting, StageOptions, Stages

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
        setting = self._setting(stages)
        for option in stages.options().values():
            for fault in option.faults(setting):
                raise RecipeError(fault)
        return stages

    def _setting(self, stages: Stages) -> Setting:
        """What this recipe says beside its stages."""
        run = self.calibration
        return Setting(
            prompts=run.num_prompts,
            steps=run.num_inference_steps,
            guidance_scale=run.guidance_scale,
            activation_bits=self.activation_bits,
            groups=self.timestep_groups or (run.num_inference_steps if stages.per_step else 1),
            dynamic_activations=self.dynamic_activations,
            time_path=stages.time_path.kind,
        )


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
