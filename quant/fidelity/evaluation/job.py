"""What is asked of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from contract.catalogue import ModelDescription
from quant.errors import EvaluationError
from quant.fidelity.backbone import BACKBONE_FOLDER
from quant.sampling.prompts import PromptSet, SeenPrompt
from quant.sampling.request import Sampling
from quant.sampling.seeds import EVALUATION_SEED


@dataclass(frozen=True)
class EvaluationJob:
    """What to measure: variants by name with their checkpoints, on `prompt_sets`, the first being the primary one.

    `metrics` empty means all that can be measured; `seen` are the prompts that calibrations may have used, by id;
    `real` is a folder of real pictures that distances between distributions are also taken to; into `pictures` all
    pictures that are drawn are written. Without `floors` those are not drawn, as where they are known."""

    model: str
    description: ModelDescription
    variants: dict[str, Path]
    prompt_sets: tuple[PromptSet, ...]
    metrics: tuple[str, ...] = ()
    seed: int = EVALUATION_SEED
    seen: Mapping[str, SeenPrompt] = field(default_factory=dict)
    real: Path | None = None
    pictures: Path | None = None
    backbones: Path = BACKBONE_FOLDER
    device: str = "cpu"
    floors: bool = True

    @property
    def sampling(self) -> Sampling:
        """How all pictures are drawn: as the model's description says."""
        return Sampling.native(self.description)

    def check(self) -> None:
        """Raises EvaluationError where there is nothing to measure, or sets have the same name."""
        sets = [prompt_set.name for prompt_set in self.prompt_sets]
        if not self.variants or not sets:
            raise EvaluationError("an evaluation needs at least one variant and one prompt set")
        if len(set(sets)) < len(sets):
            raise EvaluationError(f"prompt sets must have different names: {', '.join(sets)}")
