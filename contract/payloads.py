"""What a job is asked to do, per kind: complete, with every default already filled in by the gateway."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from contract.card import Identifier
from contract.recipe import Recipe

REFERENCE = "reference"
"""The variant name that stands for the floating-point model itself."""

MAX_PROMPT_CHARACTERS = 2_000

OutputFormat = Literal["png", "jpeg", "webp"]


class SamplingPayload(BaseModel):
    """What any picture needs. `scheduler` None is the model's own; image i of n draws its noise from its own generator,
    so that `seed` fixes the pictures on every device and in every batch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str = Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS)
    negative_prompt: str = Field(max_length=MAX_PROMPT_CHARACTERS)
    model: Identifier
    variant: Identifier
    seed: int = Field(ge=0, lt=2**32)
    num_inference_steps: int = Field(ge=1, le=150)
    guidance_scale: float = Field(ge=0.0, le=30.0, allow_inf_nan=False)
    width: int = Field(ge=8, multiple_of=8)
    height: int = Field(ge=8, multiple_of=8)
    num_images: int = Field(ge=1, le=8)
    scheduler: str | None


class GenerationPayload(SamplingPayload):
    """Pictures from the reference or from a variant; `score` also measures the variant against the reference."""

    output_format: OutputFormat
    score: bool


class ComparisonPayload(SamplingPayload):
    """The reference and a variant on the same noise."""


class CalibrationPayload(BaseModel):
    """A new variant of a model. `prompts` is a prompt set's name, or the prompts themselves: the last `held_out` of
    those measure the variant, and calibration never sees them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Identifier
    variant: Identifier
    recipe: Recipe
    prompts: str | tuple[str, ...]
    held_out: int = Field(ge=1, le=1024)


Payload = GenerationPayload | ComparisonPayload | CalibrationPayload
