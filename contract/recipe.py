"""A recipe: what to quantize and how. One TOML file per preset in `recipes/`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from contract.errors import RecipeError

Pattern = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_.*?\[\]!-]+$")]


class CalibrationInputs(BaseModel):
    """Which runs of the reference the quantization parameters are fixed on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_prompts: int = Field(default=32, ge=1, le=1024)
    num_inference_steps: int = Field(default=25, ge=1, le=1000)
    guidance_scale: float = Field(default=4.0, ge=0.0, le=30.0, allow_inf_nan=False)
    seed: int = Field(default=0, ge=0, lt=2**32)


Bits = Annotated[int, Field(ge=2, le=8)]


class Recipe(BaseModel):
    """How a variant is made from its reference.

    `method` names a file in quant/methods. Weights have `weight_bits` (per output channel, symmetric), activations
    `activation_bits` (per tensor, static). Layers whose name matches a pattern of `keep_float` (fnmatch) stay in
    floating point; `layer_bits` gives the weights of others their own bits, the first pattern that matches counting.

    Options of the integer graph: `timestep_groups`, tables of activation scales over the sampler's steps;
    `split_shortcuts`, two ranges for the concatenated inputs of a UNet's shortcut convolutions; `dynamic_activations`,
    a scale for every token in linear layers instead of a calibrated one; `attention_bits`, integer products of query,
    key and value, with `softmax_bits` for the softmax output; `packed`, weights of 4 bits or fewer packed in memory."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")
    family: str = Field(default="stable_diffusion", pattern=r"^[a-z][a-z0-9_]{0,31}$")
    weight_bits: Bits = 8
    activation_bits: Bits = 8
    keep_float: tuple[Pattern, ...] = Field(default=(), max_length=256)
    layer_bits: dict[Pattern, Bits] = Field(default={}, max_length=256)
    timestep_groups: int = Field(default=1, ge=1, le=1000)
    split_shortcuts: bool = False
    dynamic_activations: bool = False
    attention_bits: Bits | None = None
    softmax_bits: Literal[2, 3, 4, 5, 6, 7, 8, 16] = 8
    packed: bool = False
    calibration: CalibrationInputs = CalibrationInputs()

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
        if self.timestep_groups > self.calibration.num_inference_steps:
            raise ValueError(
                f"timestep_groups {self.timestep_groups} is more than the calibration's "
                f"{self.calibration.num_inference_steps} steps"
            )
        if self.attention_bits is None and self.softmax_bits != 8:
            raise ValueError("softmax_bits needs attention_bits: without them the softmax output is not quantized")
        return self


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file. Raises RecipeError, naming the file and the fault."""
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise RecipeError(f"recipe {path}: {error}") from error


def read_presets(folder: Path) -> dict[str, Recipe]:
    """All presets of a folder by name (the file's name without .toml). Raises RecipeError on the first bad one."""
    presets = {path.stem: read_recipe(path) for path in sorted(folder.glob("*.toml"))}
    for name in presets:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name):
            raise RecipeError(f"recipe {name!r}: a preset's name has lower-case letters, digits and hyphens only")
    return presets
