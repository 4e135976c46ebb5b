"""One arm of a study: a pipeline that draws every prompt, loaded when it first has to."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline

from contract.card import Card
from contract.catalogue import ModelDescription
from quant.checkpoints.pipelines import load_reference, load_variant
from quant.identity import code_digest, machine, weights_digest
from quant.sampling.seeds import SEEDS

REFERENCE = "reference"
"""The name of the arm that all others are measured against."""


@dataclass
class Arm:
    """`identity` is what its pictures depend on besides prompts, seeds and settings; `seed_offset` is added to every
    seed."""

    name: str
    identity: dict[str, Any]
    load: Callable[[], DiffusionPipeline]
    seed_offset: int = 0
    _pipeline: DiffusionPipeline | None = field(default=None, repr=False)

    @property
    def pipeline(self) -> DiffusionPipeline:
        """The pipeline, loaded now if need be. Raises what loading raises."""
        if self._pipeline is None:
            self._pipeline = self.load()
        return self._pipeline

    def seeds(self, seeds: list[int]) -> list[int]:
        """The seeds of this arm's pictures."""
        return [(seed + self.seed_offset) % SEEDS for seed in seeds]

    def close(self) -> None:
        """Gives the pipeline's memory back."""
        self._pipeline = None
        gc.collect()


def pipeline_arm(name: str, pipeline: DiffusionPipeline) -> Arm:
    """A pipeline in memory. It has no identity, so a study keeps nothing of it."""
    return Arm(name, {}, lambda: pipeline)


def reference_arm(description: ModelDescription, device: str) -> Arm:
    """The floating-point model. Raises ModelError where its weights are not at hand."""
    identity = {
        "weights": weights_digest(description.source),
        "dtype": description.dtype,
        "code": code_digest(),
        "machine": machine(device),
    }
    return Arm(REFERENCE, identity, lambda: load_reference(description).to(device))


def variant_arm(name: str, folder: Path, card: Card, dtype: str, device: str) -> Arm:
    """A variant in its model's dtype, its files checked against its card when it is loaded."""
    identity = {"checkpoint": card.digest, "code": code_digest(), "machine": machine(device)}
    if dtype != "float32":
        identity["dtype"] = dtype
    return Arm(name, identity, lambda: load_variant(folder, dtype).to(device))
