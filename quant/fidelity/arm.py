"""One arm of an evaluation: a pipeline that draws every prompt, loaded when it first has to."""

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
from quant.fidelity.bfloat16 import bfloat16_copy
from quant.identity import code_digest, machine, weights_digest
from quant.sampling.seeds import SEEDS

BFLOAT16 = "bfloat16"
OTHER_SEEDS = "other_seeds"
OTHER_SEEDS_OFFSET = 2**31


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


def reference_arms(description: ModelDescription, device: str) -> tuple[Arm, Arm, Arm]:
    """The reference; the reference with its denoiser in bfloat16, or, where that is its own dtype, in float32; and the
    reference from other noise."""
    identity = {
        "weights": weights_digest(description.source),
        "dtype": description.dtype,
        "code": code_digest(),
        "machine": machine(device),
    }

    def load() -> DiffusionPipeline:
        return load_reference(description).to(device)

    exact = description.model_copy(update={"dtype": "float32"})
    return (
        Arm("reference", identity, load),
        Arm(BFLOAT16, identity | {"dtype": BFLOAT16}, lambda: bfloat16_copy(load()))
        if description.dtype == "float32"
        else Arm(BFLOAT16, identity | {"dtype": "float32"}, lambda: load_reference(exact).to(device)),
        Arm(OTHER_SEEDS, identity, load, OTHER_SEEDS_OFFSET),
    )


def variant_arm(name: str, folder: Path, card: Card, dtype: str, device: str) -> Arm:
    """A variant in its model's dtype, its files checked against its card when it is loaded."""
    identity = {"checkpoint": card.digest, "code": code_digest(), "machine": machine(device)}
    if dtype != "float32":
        identity["dtype"] = dtype
    return Arm(name, identity, lambda: load_variant(folder, dtype).to(device))
