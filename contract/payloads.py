"""What a job is asked to do, per kind: complete, with every default already filled in by the gateway."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

from contract.identifier import Identifier
from contract.patterns import METRIC, PROMPT_SET
from contract.recipe import Recipe
from contract.sampling import Guidance, Pictures, Seed, Side, Steps, Text

REFERENCE = "reference"
"""The variant name that stands for the floating-point model itself."""

MAX_EVALUATED = 16
"""Variants that one evaluation may measure."""

MAX_PROMPTS = 5_000
"""Prompts of each set that one evaluation may draw."""

OutputFormat = Literal["png", "jpeg", "webp"]
MetricName = Annotated[str, Field(pattern=METRIC)]
"""A metric, and after a colon what it sees pictures through, where it is not the metric's own choice."""

PromptSetName = Annotated[str, Field(pattern=PROMPT_SET)]
"""A set's name in the catalogue; never a path."""


class SamplingPayload(BaseModel):
    """What any picture needs. `scheduler` None is the model's own; image i of n draws its noise from its own generator,
    so that `seed` fixes the pictures on every device and in every batch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Annotated[Text, Field(min_length=1)] | None
    """None for a model that draws without one."""
    negative_prompt: Text
    model: Identifier
    variant: Identifier
    seed: Seed
    num_inference_steps: Steps
    guidance_scale: Guidance
    width: Side
    height: Side
    num_images: Pictures
    scheduler: str | None
    strict: bool = Field(default=False, exclude_if=lambda strict: not strict)
    """Refuse a prompt that a text encoder would cut. Left out where it is False: 0.1.0 does not know it."""


class GenerationPayload(SamplingPayload):
    """Pictures from the reference or from a variant; `score` also measures the variant against the reference."""

    output_format: OutputFormat
    score: bool

    @classmethod
    def of(cls, sampling: SamplingPayload, *, output_format: OutputFormat, score: bool) -> Self:
        """The generation of a sampling. Raises ValidationError."""
        return cls(**dict(sampling), output_format=output_format, score=score)


class ComparisonPayload(SamplingPayload):
    """The reference and a variant on the same noise."""

    @classmethod
    def of(cls, sampling: SamplingPayload) -> Self:
        """The comparison of a sampling. Raises ValidationError."""
        return cls(**dict(sampling))


class CalibrationPayload(BaseModel):
    """A new variant of a model. `prompts` is a prompt set's name, or the prompts themselves: the last `held_out` of
    those measure the variant, and calibration never sees them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Identifier
    variant: Identifier
    recipe: Recipe
    prompts: str | tuple[str, ...]
    held_out: int = Field(ge=1, le=1024)


class EvaluationPayload(BaseModel):
    """Variants against the reference over whole prompt sets, of which the first is the primary one: `limit` prompts of
    each. No metrics means the default ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Identifier
    variants: tuple[Identifier, ...] = Field(min_length=1, max_length=MAX_EVALUATED)
    prompt_sets: tuple[PromptSetName, ...] = Field(min_length=1, max_length=8)
    limit: int = Field(ge=1, le=MAX_PROMPTS)
    metrics: tuple[MetricName, ...] = Field(max_length=32)
    seed: Seed

    @field_validator("variants", "prompt_sets", "metrics")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("must not repeat a name")
        return names


Payload = GenerationPayload | ComparisonPayload | CalibrationPayload | EvaluationPayload
