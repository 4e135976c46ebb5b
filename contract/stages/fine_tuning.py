"""`fine_tuning`: training the quantized denoiser as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from contract.stages.option import Batch, Option, Rate, Setting, Weighting, needs_ranges


class NoFineTuning(Option):
    """What the stages before made is final."""

    kind: Literal["none"] = "none"

    @property
    def trains_time_tables(self) -> bool:
        """Whether a precalculated time path is trained along."""
        return False


class FineTuning(Option):
    """Weights, weight scales and activation scales follow the reference's output, on new trajectories every round.
    `parallel`: on shuffled steps of the reference's; `serial`: step after step along a trajectory (EfficientDM, arXiv
    2310.03270); `serial_to_parallel`: rounds that first collect the quantized model's own trajectories and then train
    on all their steps, shuffled (arXiv 2412.06661).

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

    @property
    def trains_time_tables(self) -> bool:
        """As `NoFineTuning.trains_time_tables`."""
        return self.time_tables

    @property
    def compares_features(self) -> bool:
        """Whether outputs of the denoiser's stages are compared with the reference's."""
        return self.feature_weight > 0.0 or self.freezing == "plateau"

    def updates(self, steps: int) -> int:
        """Optimizer steps in all, for a sampler of `steps`; equal for the three kinds, so that they can be compared."""
        return self.rounds * self.epochs * -(-self.prompts * steps // self.batch)

    def faults(self, setting: Setting) -> Iterator[str]:
        yield from needs_ranges(setting)
        if self.target == "reference_trajectory" and self.kind != "serial_to_parallel":
            yield f"target reference_trajectory: {self.kind} fine-tuning is on the reference's trajectory already"
        if self.time_tables and setting.time_path != "precalculate":
            yield "time_tables: there are none to train unless time_path is precalculate"
        if self.guided and setting.guidance_scale <= 1.0:
            yield f"guided fine-tuning needs guidance: guidance_scale is {setting.guidance_scale}"


Tuning = NoFineTuning | FineTuning
