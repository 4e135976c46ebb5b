"""The document of an evaluation: all that it found, as report.json holds it.

JSON has some dictionaries among the other keys of what they belong to, as prompt sets in
`variants.<name>.<prompt set>.<metric>`; here each is a field of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from contract.card import SamplerSignature, Statistic
from quant.fidelity.statistics import Spread

FORMAT_VERSION = 1

Figures = dict[str, SerializeAsAny[Annotated[Statistic | Spread, Field(union_mode="left_to_right")]]]
"""By metric, a Spread where pictures are measured one by one; with `first_diverging_step`, and `<metric>_to_real` where
there are real pictures."""

Curve = tuple[float | None, ...]
"""Mean distance of the latents to the reference's after every step, None where no picture is valid."""


class Record(BaseModel):
    """Part of a document."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Merged(Record):
    """A record whose field `MERGED`, a dictionary, lies among the record's own keys in JSON."""

    MERGED: ClassVar[str] = "prompt_sets"

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or cls.MERGED in given:
            return given
        own = {name: value for name, value in given.items() if name in cls.model_fields}
        return own | {cls.MERGED: {name: value for name, value in given.items() if name not in own}}

    @model_serializer(mode="wrap")
    def _merge(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for name, value in handler(self).items():
            merged |= value if name == self.MERGED else {name: value}
        return merged


class SharedSettings(Record):
    """What all pictures are drawn with."""

    negative_prompt: str
    num_inference_steps: int
    guidance_scale: float
    width: int
    height: int
    scheduler: str | None


class MeasuredSet(Record):
    """A prompt set: how many prompts it has, how many were left out of it and why, its ends, and its digest."""

    count: int
    left_out: dict[str, int]
    first: str
    last: str
    digest: str


class MetricTraits(Record):
    """What a metric says of itself. `identical` is its value for identical pictures, None where that is neither 0 nor
    1."""

    better: Literal["higher", "lower"]
    identical: float | None
    unit: str
    symmetric: bool
    backbone: str | None
    of_sets: bool


class Protocol(Record):
    """What was done; `not_measured` has the reasons by metric."""

    seed: int
    pairing: str
    other_seeds_offset: int
    sampling: SharedSettings
    batch: int
    prompt_sets: dict[str, MeasuredSet]
    metrics: dict[str, MetricTraits]
    not_measured: dict[str, str]
    diverged_at: float
    intervals: str
    tests: str


class Identity(Record):
    """What the reference's pictures depend on: digests of weights and code, dtype, and the machine."""

    weights: str
    dtype: str
    code: str
    machine: dict[str, str]


class Reference(Merged):
    """The reference, with its own figures by prompt set: those that are not about the reference."""

    identity: Identity
    prompt_sets: dict[str, Figures]


class Floor(Merged):
    """Figures by prompt set, and curves where pictures were drawn; `primary` are the figures of the first set."""

    MERGED: ClassVar[str] = "primary"

    primary: Figures
    prompt_sets: dict[str, Figures]
    curves: dict[str, Curve] = Field(default={}, exclude_if=lambda curves: not curves)


class AttentionProducts(Record):
    """Whether the products of attention are quantized, and to what."""

    quantized: bool
    bits: int
    softmax_bits: int


class Tables(Record):
    """The tables of activation ranges."""

    timestep_groups: int
    rows: int
    bytes: int


class CalibrationCost(Record):
    """What a calibration took."""

    prompts: int
    seconds: float
    peak_resident_bytes: int | None


class ReportCard(Record):
    """What must be known of a variant before its figures are compared with anybody's. `recipe` is as its card has
    it."""

    digest: str
    recipe: dict[str, JsonValue]
    average_weight_bits: float
    average_weight_bits_with_float_layers: float
    average_activation_bits: float
    quantized_layers: int
    float_layers: tuple[str, ...]
    float_weight_share: float
    attention_products: AttentionProducts
    shortcuts: str
    dynamic_activations: bool
    tables: Tables
    denoiser_bytes: int
    reference_denoiser_bytes: int
    calibration: CalibrationCost
    sampler: SamplerSignature


class Generalization(Merged):
    """How much worse a variant is on other prompt sets than on the one it was calibrated on, by set and metric:
    positive is worse. There are no gaps where that set is not known or not measured."""

    MERGED: ClassVar[str] = "gaps"

    calibrated_on: str | None
    gaps: dict[str, dict[str, Statistic]] = {}


class WorstPicture(Merged):
    """A picture that is far from the reference's; `scores` has the value of the metric that ranked it."""

    MERGED: ClassVar[str] = "scores"

    prompt_set: str
    id: str
    prompt: str | None
    scores: dict[str, float]


class Variant(Merged):
    """A variant that was measured, with its figures by prompt set and metric; `invalid_pictures` are ids of
    prompts."""

    card: ReportCard
    prompt_sets: dict[str, Figures]
    generalization: Generalization
    curves: dict[str, Curve]
    invalid_pictures: dict[str, tuple[str, ...]]
    worst: tuple[WorstPicture, ...]


class Failure(Record):
    """A variant that could not be measured, and why; without a card where that cannot be read."""

    card: ReportCard | None
    error: str


class MeanDifference(Record):
    """The mean of a - b over `count` prompts, with its 95 % interval."""

    mean: float | None
    ci95: tuple[float, float] | None
    count: int


class VariantComparison(Record):
    """Two arms on one metric and prompt set, the better one as `a`; `p` is None for fewer than two prompts."""

    a: str
    b: str
    prompt_set: str
    metric: str
    difference: MeanDifference
    p: float | None
    sentence: str


class Times(Record):
    """When it started (ISO 8601), how long it took, and the most memory that it had."""

    started: str
    seconds: float
    peak_resident_bytes: int


class Document(Record):
    """All of it. Everything but `times` is the same in every run."""

    format_version: int = FORMAT_VERSION
    model: str
    protocol: Protocol
    reference: Reference
    floors: dict[str, Floor]
    variants: dict[str, Variant | Failure]
    comparisons: tuple[VariantComparison, ...]
    times: Times

    @property
    def measured(self) -> dict[str, Variant]:
        """The variants that were measured, by name."""
        return {name: variant for name, variant in self.variants.items() if isinstance(variant, Variant)}

    @property
    def failures(self) -> dict[str, str]:
        """Why the others were not, by name."""
        return {name: variant.error for name, variant in self.variants.items() if isinstance(variant, Failure)}
