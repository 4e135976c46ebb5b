"""What clients send. Omitted values are filled in by app.admission, from what the model is meant for."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from contract.identifier import Identifier
from contract.payloads import MAX_EVALUATED, MAX_PROMPTS, REFERENCE, MetricName, OutputFormat, PromptSetName
from contract.recipe import Recipe
from contract.sampling import Guidance, Pictures, Seed, Side, Steps, Text


def _printable(text: str) -> str:
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t":
            raise ValueError("must hold no control character but tab and newline")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def _named_or_given(value: Any) -> str:
    return "named" if isinstance(value, str) else "given"


PrintableText = Annotated[Text, AfterValidator(_printable)]
PromptText = Annotated[PrintableText, AfterValidator(_not_blank)]

NAMED, GIVEN, NAMED_OR_GIVEN = Tag("named"), Tag("given"), Discriminator(_named_or_given)
"""Of fields that take a string or something else: what is sent says which, so that faults are of that one only."""


def _examples(*bodies: dict[str, Any]) -> ConfigDict:
    return ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": list(bodies)})


class SamplingBody(BaseModel):
    """What generations and comparisons have in common."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: PromptText | None = Field(default=None, description="needed, but for models that draw without one")
    negative_prompt: PrintableText = ""
    model: Identifier
    seed: Seed | None = Field(default=None, description="drawn and answered if missing")
    num_inference_steps: Steps | None = None
    guidance_scale: Guidance | None = None
    width: Side | None = None
    height: Side | None = None
    num_images: Pictures = 1
    scheduler: str | None = None
    strict: bool = Field(default=False, description="fail instead of cutting a prompt that is too long")


class GenerationBody(SamplingBody):
    """`POST /v1/generations`."""

    model_config = _examples({"model": "shapes-sd", "prompt": "a large red cube", "variant": "w8a8-minmax"})

    variant: Identifier = REFERENCE
    output_format: OutputFormat = "png"
    score: bool = Field(default=False, description="also measure the variant against the reference")


class ComparisonBody(SamplingBody):
    """`POST /v1/comparisons`."""

    model_config = _examples({"model": "shapes-sd", "prompt": "a blue torus", "variant": "w4a8-minmax", "seed": 7})

    variant: Identifier


class CalibrationBody(BaseModel):
    """`POST /v1/calibrations`."""

    model_config = _examples(
        {"model": "shapes-sd", "recipe": "minmax-w8a8", "prompts": "shapes-plain", "variant": "mine"}
    )

    model: Identifier
    recipe: Annotated[Annotated[str, NAMED] | Annotated[Recipe, GIVEN], NAMED_OR_GIVEN] = Field(
        description="a preset's name, or a recipe"
    )
    prompts: Annotated[
        Annotated[str, NAMED] | Annotated[list[PromptText], Field(min_length=2, max_length=1024), GIVEN], NAMED_OR_GIVEN
    ] = Field(description="a prompt set's name, or prompts; a part of them is held out to measure the variant")
    variant: Identifier | None = Field(default=None, description="the new name; the recipe's own if missing")


class EvaluationBody(BaseModel):
    """`POST /v1/evaluations`."""

    model_config = _examples({"model": "shapes-sd", "variants": ["w8a8-minmax"], "prompt_sets": ["shapes-plain"]})

    model: Identifier
    variants: Annotated[
        Annotated[Literal["all"], NAMED]
        | Annotated[list[Identifier], Field(min_length=1, max_length=MAX_EVALUATED), GIVEN],
        NAMED_OR_GIVEN,
    ] = Field(default="all", description="published variants, or all that the model has")
    prompt_sets: list[PromptSetName] = Field(min_length=1, max_length=8, description="the first is the primary one")
    limit: int = Field(default=64, ge=1, le=MAX_PROMPTS, description="prompts of each set")
    metrics: list[MetricName] = Field(
        default=[], max_length=32, description="`name` or `name:backbone`; the default ones if empty"
    )
    seed: Seed = Field(default=2_000_000, description="of the first picture of every set; calibrations use others")
