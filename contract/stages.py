"""The stages of quantization and their options: what a method is made of, and what a recipe may change of it.

Every stage has interchangeable options, each a model with a `kind`; `null` in a recipe's `[stages]` table, or leaving a
stage out, means the option of the recipe's method."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

Iterations = Annotated[int, Field(ge=1, le=100_000)]
Batch = Annotated[int, Field(ge=1, le=1024)]
Rate = Annotated[float, Field(gt=0.0, le=10.0, allow_inf_nan=False)]
Weighting = Annotated[float, Field(ge=0.0, le=1000.0, allow_inf_nan=False)]
RelaxedBits = Literal[2, 3, 4, 5, 6, 7, 8, 16]
"""Bits of activations at relaxed steps; 16 leaves them in floating point."""

Fraction = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]


class Option(BaseModel):
    """One option of a stage."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)


class Keep(Option):
    """The time layers are layers like any other."""

    kind: Literal["keep"] = "keep"


class Tiar(Option):
    """Their rounding is optimized together against the temporal features (TFMQ-DM, arXiv 2311.16503)."""

    kind: Literal["tiar"] = "tiar"
    iterations: Iterations = 500
    learning_rate: Rate = 5e-2
    regularization: Weighting = 0.01


class Precalculate(Option):
    """Their outputs at the sampler's steps are stored and the layers deleted (arXiv 2412.06661)."""

    kind: Literal["precalculate"] = "precalculate"


class PerRequest(Option):
    """They stay in floating point and run once a request, for all steps together."""

    kind: Literal["per_request"] = "per_request"


class UniformBits(Option):
    """Every layer has the recipe's weight bits, but for its own exceptions."""

    kind: Literal["uniform"] = "uniform"


class SensitiveBits(Option):
    """The most sensitive layers get `lifted_bits` while the average stays within `extra_bits` of the recipe's: by
    sensitivity per bit, or by an integer programme (MixDQ, arXiv 2405.17873)."""

    kind: Literal["greedy", "integer_programme"]
    lifted_bits: int = Field(default=8, ge=2, le=8)
    extra_bits: float = Field(default=0.25, gt=0.0, le=6.0, allow_inf_nan=False)
    prompts: int = Field(default=4, ge=1, le=64)
    steps: int = Field(default=5, ge=1, le=1000)


class UniformSteps(Option):
    """A stride over the steps, the same prompts at each, all of them where there are fewer (Q-Diffusion, arXiv
    2302.04304)."""

    kind: Literal["uniform"] = "uniform"
    steps: int = Field(default=13, ge=1, le=1000)
    prompts_per_step: int = Field(default=20, ge=1, le=1024)
    trajectory: Literal["reference", "quantized"] = "reference"


class NormalSteps(Option):
    """Timesteps drawn from a clipped normal distribution (PTQ4DM, arXiv 2211.15736)."""

    kind: Literal["normal"] = "normal"
    samples: int = Field(default=256, ge=1, le=100_000)
    mean: Fraction = 0.4
    std: Fraction = 0.4
    trajectory: Literal["reference", "quantized"] = "reference"


class Tdac(Option):
    """As many samples of each step as its features' density and diversity say (EDA-DM, arXiv 2401.04585): one of every
    prompt. Without a `density_radius` the median distance of two steps is taken."""

    kind: Literal["tdac"] = "tdac"
    diversity_weight: Weighting = 1.2
    density_radius: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)
    feature_prompts: int = Field(default=8, ge=1, le=64)
    trajectory: Literal["reference", "quantized"] = "reference"


class EveryStep(Option):
    """All steps of `prompts` trajectories, or of as many as there are prompts."""

    kind: Literal["all"] = "all"
    prompts: int = Field(default=10, ge=1, le=1024)
    trajectory: Literal["reference", "quantized"] = "reference"


class LastSteps(Option):
    """All prompts at the `steps` nearest to the picture: what a calibration set looks like that ignores time."""

    kind: Literal["last"] = "last"
    steps: int = Field(default=1, ge=1, le=1000)
    trajectory: Literal["reference", "quantized"] = "reference"


class WeightScales(Option):
    """The step of every output channel: from its largest weight, or the one with the least error to the power 2.4."""

    kind: Literal["minmax", "mse"] = "minmax"


class Nearest(Option):
    """To the nearest level."""

    kind: Literal["nearest"] = "nearest"


class AdaRound(Option):
    """Up or down, by the error of one layer's (`adaround`, arXiv 2004.10568) or one block's output (`brecq`, arXiv
    2102.05426). Units read inputs of the quantized prefix, or (`inputs = "reference"`) of the reference."""

    kind: Literal["adaround", "brecq"]
    iterations: Iterations = 400
    batch: Batch = 32
    learning_rate: Rate = 2e-1
    regularization: Weighting = 0.01
    warmup: Fraction = 0.2
    inputs: Literal["quantized", "reference"] = "quantized"
    drop: Fraction = 0.0


class FineGrained(Option):
    """Block reconstruction whose loss holds the errors of the layers inside, weighted `gamma`, with QDrop and with the
    activation scales learned along (EDA-DM's FBR, arXiv 2401.04585)."""

    kind: Literal["fbr"] = "fbr"
    iterations: Iterations = 400
    batch: Batch = 32
    learning_rate: Rate = 2e-1
    scale_learning_rate: Rate = 1e-3
    gamma: Weighting = 0.8
    drop: Fraction = 0.5
    regularization: Weighting = 0.0
    warmup: Fraction = 0.2
    learn_ranges: bool = True


class ObservedRanges(Option):
    """Ranges of activations as seen over the calibration set: of the reference, or of the model with its weights
    quantized."""

    kind: Literal["minmax", "ema", "mse"] = "minmax"
    observed: Literal["reference", "quantized_weights"] = "reference"


class LearnedRanges(Option):
    """Observed ranges (by least error), then learned unit by unit (LSQ, arXiv 1902.08153)."""

    kind: Literal["lsq"] = "lsq"
    iterations: Iterations = 150
    batch: Batch = 32
    learning_rate: Rate = 4e-3


class ProgressiveRanges(Option):
    """A range for every step, observed while all earlier steps are quantized already (PCR, arXiv 2311.06322), `passes`
    times a step."""

    kind: Literal["progressive"] = "progressive"
    observer: Literal["minmax", "ema", "mse"] = "minmax"
    prompts: int = Field(default=32, ge=1, le=1024)
    passes: int = Field(default=1, ge=1, le=8)


class SameBits(Option):
    """Activations have the recipe's bits at all steps."""

    kind: Literal["same"] = "same"


class RelaxedWindow(Option):
    """More activation bits in the steps from `start` to `end`, both included, as fractions of all steps (PCR)."""

    kind: Literal["window"] = "window"
    start: Fraction
    end: Fraction
    bits: RelaxedBits = 16

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.start >= self.end:
            raise ValueError(f"a window from {self.start} to {self.end} holds no step: start must be below end")
        return self


class RelaxedSteps(Option):
    """As a window, where it lowers the error most: windows of `width` of all steps are tried one by one."""

    kind: Literal["automatic"] = "automatic"
    width: float = Field(default=0.1, gt=0.0, le=1.0, allow_inf_nan=False)
    bits: RelaxedBits = 16
    prompts: int = Field(default=8, ge=1, le=64)


class RelaxedInputs(Option):
    """More bits for the inputs of single layers at single steps, the `share` of all of them that the picture notices
    most, measured on `prompts` trajectories."""

    kind: Literal["sensitive"] = "sensitive"
    share: float = Field(default=0.01, gt=0.0, le=1.0, allow_inf_nan=False)
    bits: RelaxedBits = 16
    prompts: int = Field(default=4, ge=1, le=64)


class NoFineTuning(Option):
    """What the stages before made is final."""

    kind: Literal["none"] = "none"


class FineTuning(Option):
    """Weights, weight scales and activation scales follow the reference's output, on new trajectories every round.
    `parallel`: on shuffled steps of the reference's; `serial`: step after step along a trajectory (EfficientDM, arXiv
    2310.03270);
    `serial_to_parallel`: rounds that first collect the quantized model's own trajectories and then train on all their
    steps, shuffled (arXiv 2412.06661).

    `guided`: the error of the output after guidance counts, not that of each branch; `time_tables`: a precalculated
    time path is trained along, a bias for every step.

    `target`: the reference's output at the quantized model's state, or at its own. `feature_weight`: inter-layer
    distillation. `freezing`: none; blocks whose error no longer falls (`plateau`); weights that flip to and fro
    (`oscillation`); or everything from the start but activation scales and sensitive layers (`sensitive`)."""

    kind: Literal["serial", "parallel", "serial_to_parallel"]
    rounds: int = Field(default=8, ge=1, le=1000)
    prompts: int = Field(default=32, ge=1, le=1024)
    epochs: int = Field(default=1, ge=1, le=100)
    batch: Batch = 32
    weight_learning_rate: Rate = 4e-3
    weight_scale_learning_rate: Rate = 1e-3
    activation_learning_rate: Rate = 1e-3
    gradient_clip: Rate = 1.0
    target: Literal["student_state", "reference_trajectory"] = "student_state"
    guided: bool = False
    time_tables: bool = False
    time_table_learning_rate: Rate = 2e-4
    feature_weight: Weighting = 0.0
    freezing: Literal["none", "plateau", "oscillation", "sensitive"] = "none"
    validation_prompts: int = Field(default=16, ge=1, le=256)


class NoCorrection(Option):
    """The denoiser's output is taken as it is."""

    kind: Literal["none"] = "none"


class Ptqd(Option):
    """The part of the error that is proportional to the output, and its mean, are taken out (PTQD, arXiv
    2305.10657)."""

    kind: Literal["ptqd"] = "ptqd"
    prompts: int = Field(default=16, ge=1, le=256)


Choice = Field(discriminator="kind")
SampleChoice = UniformSteps | NormalSteps | Tdac | EveryStep | LastSteps
Rounding = Nearest | AdaRound | FineGrained
Ranges = ObservedRanges | LearnedRanges | ProgressiveRanges


class StageOptions(BaseModel):
    """A recipe's own choice of stages; None is the method's. Written out, options hold what was given and no defaults:
    where the kind is the method's, the rest is the method's as well."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    time_path: Annotated[Keep | Tiar | Precalculate | PerRequest, Choice] | None = None
    bits: Annotated[UniformBits | SensitiveBits, Choice] | None = None
    inputs: Annotated[SampleChoice, Choice] | None = None
    weight_scales: WeightScales | None = None
    rounding: Annotated[Rounding, Choice] | None = None
    ranges: Annotated[Ranges, Choice] | None = None
    bits_over_time: Annotated[SameBits | RelaxedWindow | RelaxedSteps | RelaxedInputs, Choice] | None = None
    fine_tuning: Annotated[NoFineTuning | FineTuning, Choice] | None = None
    output_correction: Annotated[NoCorrection | Ptqd, Choice] | None = None

    @model_serializer
    def as_given(self) -> dict[str, dict[str, Any]]:
        """The options that were chosen, each with its kind and the fields that were set."""
        return {
            stage: {"kind": option.kind} | option.model_dump(exclude_unset=True)
            for stage, option in self
            if option is not None
        }


class Stages(BaseModel):
    """All stages of a method. `split_shortcuts` and `per_step` (a table row for every step of the sampler) are what a
    recipe that does not say gets."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    time_path: Annotated[Keep | Tiar | Precalculate | PerRequest, Choice] = Keep()
    bits: Annotated[UniformBits | SensitiveBits, Choice] = UniformBits()
    inputs: Annotated[SampleChoice, Choice] = EveryStep()
    weight_scales: WeightScales = WeightScales()
    rounding: Annotated[Rounding, Choice] = Nearest()
    ranges: Annotated[Ranges, Choice] = ObservedRanges()
    bits_over_time: Annotated[SameBits | RelaxedWindow | RelaxedSteps | RelaxedInputs, Choice] = SameBits()
    fine_tuning: Annotated[NoFineTuning | FineTuning, Choice] = NoFineTuning()
    output_correction: Annotated[NoCorrection | Ptqd, Choice] = NoCorrection()
    split_shortcuts: bool = False
    per_step: bool = False

    def changed(self, own: StageOptions) -> Stages:
        """These stages with a recipe's own choices. An option of the kind that the method has keeps what the recipe
        does not name. Raises ValueError (pydantic's) when they contradict each other."""
        mine = self.model_dump()
        for stage, option in own.as_given().items():
            mine[stage] = mine[stage] | option if mine[stage]["kind"] == option["kind"] else option
        return Stages.model_validate(mine)
