"""What a succeeded job answers, per kind. A metric is None where it is infinite: two identical pictures."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from contract.card import Card, Statistic
from contract.identifier import Identifier
from contract.reports import ReportForm

Metric = Annotated[float, Field(allow_inf_nan=False)] | None


class ImageFile(BaseModel):
    """A stored picture: its digest, and the path that answers its bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    url: str
    width: int
    height: int
    size_bytes: int


class TokenCount(BaseModel):
    """How many tokens of a prompt a text encoder took, and how many it dropped because the prompt was too long."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    used: int = Field(ge=0)
    dropped: int = Field(ge=0)


Tokens = dict[str, dict[str, TokenCount]]
"""Of `prompt` and, where guidance reads one, `negative_prompt`: the counts by text encoder."""


class Score(BaseModel):
    """A variant's pictures against the reference's on the same noise: one value per picture, beside the noise floor."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metrics: dict[str, tuple[Metric, ...]]
    noise_floor: dict[str, Statistic]


class Arm(BaseModel):
    """One side of a comparison: its pictures, the seconds of each stage, the bytes its weights occupy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: tuple[ImageFile, ...]
    seconds: dict[str, float]
    resident_bytes: int
    digest: str | None


class GenerationResult(BaseModel):
    """The pictures, the seed they came from, and the digest of the variant (None for the reference)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: tuple[ImageFile, ...]
    seed: int
    seconds: dict[str, float]
    digest: str | None
    score: Score | None
    tokens: Tokens = {}


class ComparisonResult(BaseModel):
    """Both arms on the same noise, their difference pictures, and the score."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int
    reference: Arm
    variant: Arm
    differences: tuple[ImageFile, ...]
    score: Score
    tokens: Tokens = {}


class CalibrationResult(BaseModel):
    """The variant that is served from now on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Identifier
    variant: Identifier
    card: Card


class EvaluationResult(BaseModel):
    """Means over prompts by variant, prompt set and metric, and the floors they are read against, measured on the first
    set. `failures` says why a variant could not be measured; `report` has the paths of everything else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Identifier
    report: dict[ReportForm, str]
    variants: dict[Identifier, dict[str, dict[str, Statistic]]]
    floors: dict[str, dict[str, Statistic]]
    failures: dict[Identifier, str]


Result = GenerationResult | ComparisonResult | CalibrationResult | EvaluationResult
