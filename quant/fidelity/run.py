"""The work of an evaluation: draw and measure batch after batch, each only once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from quant.fidelity.arm import Arm
from quant.fidelity.backbone import Backbones
from quant.fidelity.measurement import Measurement, measure
from quant.fidelity.metric import Metric
from quant.fidelity.tensor_cache import TensorCache
from quant.identity import code_digest, key_of
from quant.sampling.generation import Drawn, OnStep, draw
from quant.sampling.prompts import Prompt, PromptSet
from quant.sampling.request import Sampling
from quant.sampling.seeds import SEEDS

BATCH = 8
"""Pictures drawn at once. Fixed, and part of every key, since a picture's last bits depend on what is drawn with it."""


@dataclass(frozen=True)
class Batch:
    """Prompts that are drawn together, and the seeds of the reference's pictures."""

    prompts: list[Prompt]
    seeds: list[int]


def batches(prompt_set: PromptSet, seed: int) -> list[Batch]:
    """A set cut into batches; prompt i has seed `seed` + i, whatever the size of the set."""
    prompts = list(prompt_set.prompts)
    seeds = [(seed + i) % SEEDS for i in range(len(prompts))]
    return [Batch(prompts[i : i + BATCH], seeds[i : i + BATCH]) for i in range(0, len(prompts), BATCH)]


@dataclass(frozen=True)
class Run:
    """What all batches share. Reference pictures and measurements go through `cache`."""

    reference: Arm
    sampling: Sampling
    metrics: tuple[Metric, ...]
    backbones: Backbones
    cache: TensorCache
    _latest: dict[str, Drawn] = field(default_factory=dict, repr=False)

    def measurement(self, arm: Arm, batch: Batch, on_step: OnStep | None = None) -> Measurement:
        """The arm's pictures of a batch, measured. Raises what loading, drawing, measuring and `on_step` raise."""
        key = key_of(
            {
                "measured": self._drawing(arm, batch),
                "reference": self._drawing(self.reference, batch),
                "attributes": [prompt.attributes for prompt in batch.prompts],
                "metrics": [metric.key for metric in self.metrics],
                "code": code_digest(),
            }
        )
        return Measurement.of_tensors(self.cache.get(key, lambda: self._measure(arm, batch, on_step).tensors()))

    def pictures(self, arm: Arm, batch: Batch, index: int) -> tuple[Tensor, Tensor]:
        """Picture `index` of a batch by the reference and by the arm, float32 [3, H, W] in [0, 1]."""
        key = key_of({"picture": self._drawing(arm, batch), "index": index})
        mine = self.cache.get(key, lambda: {"values": self._draw(arm, batch).values[index]})
        return self._reference(batch).values[index], mine["values"]

    def values(self, arm: Arm, batch: Batch) -> Tensor:
        """All pictures of a batch by an arm, float32 [N, 3, H, W] in [0, 1]; what is no picture may be not finite."""
        return (self._reference(batch) if arm is self.reference else self._draw(arm, batch)).values

    def _measure(self, arm: Arm, batch: Batch, on_step: OnStep | None) -> Measurement:
        reference = self._reference(batch, on_step)
        drawn = reference if arm is self.reference else self._draw(arm, batch, on_step)
        return measure(reference, drawn, batch.prompts, self.metrics, self.backbones)

    def _reference(self, batch: Batch, on_step: OnStep | None = None) -> Drawn:
        key = key_of(self._drawing(self.reference, batch))
        stored = self.cache.get(key, lambda: _tensors(self._draw(self.reference, batch, on_step)))
        return Drawn(stored["trajectory"], stored["values"])

    def _draw(self, arm: Arm, batch: Batch, on_step: OnStep | None = None) -> Drawn:
        key = key_of(self._drawing(arm, batch))
        if key not in self._latest:
            self._latest.clear()
            texts = [prompt.text for prompt in batch.prompts]
            self._latest[key] = draw(arm.pipeline, texts, arm.seeds(batch.seeds), self.sampling, on_step)
        return self._latest[key]

    def _drawing(self, arm: Arm, batch: Batch) -> dict[str, Any]:
        return {
            "arm": arm.identity,
            "prompts": [prompt.text for prompt in batch.prompts],
            "seeds": arm.seeds(batch.seeds),
            "sampling": self.sampling.settings,
        }


def _tensors(drawn: Drawn) -> dict[str, Tensor]:
    return {"trajectory": drawn.trajectory, "values": drawn.values}
