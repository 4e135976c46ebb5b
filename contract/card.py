"""A variant's card: how it was made, which files it is, and how faithful it was measured to be."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from contract.identifier import Identifier
from contract.recipe import Recipe


class Statistic(BaseModel):
    """A metric over prompts: the mean, its bootstrap 95 % interval, and over how many pictures. `mean` is None when
    nothing could be averaged; `reason` then says why (two identical pictures have an infinite PSNR, for one)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mean: float | None = Field(allow_inf_nan=False)
    ci95: tuple[float, float] | None = None
    count: int = Field(ge=0)
    reason: str | None = None


class SamplerSignature(BaseModel):
    """The sampling that calibration saw and the report was measured with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scheduler: str
    prediction_type: str
    num_inference_steps: int
    guidance_scale: float
    width: int
    height: int


class ConsistencyReport(BaseModel):
    """Variant against reference on the same noise, on prompts that calibration never saw, both computing in `dtype`.
    `noise_floor` is the same comparison for the reference against itself in another dtype: bfloat16 beside float32, and
    float32 beside any other."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt_set: str
    prompt_ids: tuple[str, ...]
    seed: int
    metrics: dict[str, Statistic]
    noise_floor: dict[str, Statistic]
    dtype: str = "float32"


class Card(BaseModel):
    """Everything a user must know before trusting a variant. Files leave `evaluation` out: the gateway fills it in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = 1
    model: Identifier
    variant: Identifier
    recipe: Recipe
    digest: str = Field(pattern=r"^[0-9a-f]{64}$", description="sha256 over the names and contents of the checkpoint")
    created: datetime
    signature: SamplerSignature
    calibration_prompt_ids: tuple[str, ...]
    calibration_seconds: float
    calibration_peak_bytes: int | None = None
    quantized_layers: int
    float_layers: tuple[str, ...]
    denoiser_bytes: int
    reference_denoiser_bytes: int
    report: ConsistencyReport
    versions: dict[str, str]
    evaluation: str | None = Field(default=None, description="path of the latest evaluation report of this checkpoint")
