"""A study: every arm draws every prompt from the same noise and is measured against the reference. Cards, `compare` and
evaluations are studies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from torch import Tensor

from quant.fidelity.arm import Arm
from quant.fidelity.backbone import Backbones
from quant.fidelity.measurement import Measurement, measure
from quant.fidelity.metric import Metric
from quant.identity import code_digest, key_of
from quant.sampling.generation import Drawn, OnStep, draw, refuse_faults
from quant.sampling.prompts import Prompt
from quant.sampling.request import Sampling
from quant.sampling.seeds import SEEDS

BATCH = 8
"""Pictures drawn at once. Fixed, and part of every key, since a picture's last bits depend on what is drawn with it."""

Tensors = dict[str, Tensor]


class Store(Protocol):
    """Keeps tensors by key."""

    def get(self, key: str, make: Callable[[], Tensors], /) -> Tensors:
        """The tensors of a key, made now if need be."""
        ...


@dataclass(frozen=True)
class Batch:
    """Prompts that are drawn together, and the seeds of the reference's pictures."""

    prompts: list[Prompt]
    seeds: list[int]


OnBatch = Callable[[Arm, int, Batch], None]
"""Called with an arm, the place of a batch and the batch, when that has been measured."""


def batches(prompts: Sequence[Prompt], seed: int) -> list[Batch]:
    """Prompts cut into batches; prompt i has seed `seed` + i, however many there are."""
    seeds = [(seed + i) % SEEDS for i in range(len(prompts))]
    return [Batch(list(prompts[i : i + BATCH]), seeds[i : i + BATCH]) for i in range(0, len(prompts), BATCH)]


@dataclass(frozen=True)
class Study:
    """What all arms share. The reference's pictures, and measurements, go through `store`; without one nothing is
    kept but the batch at hand. `strict` refuses what is no picture, which is else left out and told of; `curves`
    measures how far the latents are after every step, for which all arms must take the same steps."""

    reference: Arm
    sampling: Sampling
    metrics: tuple[Metric, ...]
    backbones: Backbones
    store: Store | None = None
    strict: bool = False
    curves: bool = True
    _latest: dict[bool, tuple[Arm, Batch, Drawn]] = field(default_factory=dict, repr=False)

    def measured(
        self, arms: Sequence[Arm], cut: Sequence[Batch], on_pictures: OnStep, on_batch: OnBatch | None = None
    ) -> dict[str, Measurement]:
        """Every arm's pictures of all batches, measured, by the arm's name. All arms draw a batch before the next one,
        so that the reference draws it once. `on_pictures` gets (pictures done, pictures in all) at every step.

        Raises what `measurement` raises, and what the two callbacks raise."""
        total, done = sum(len(batch.prompts) for batch in cut), 0
        parts: dict[str, list[Measurement]] = {arm.name: [] for arm in arms}
        for place, batch in enumerate(cut):
            for arm in arms:
                parts[arm.name].append(self.measurement(arm, batch, partial(_beat, on_pictures, done, total)))
                if on_batch is not None:
                    on_batch(arm, place, batch)
            done += len(batch.prompts)
            on_pictures(done, total)
        return {name: Measurement.joined(measurements) for name, measurements in parts.items()}

    def measurement(self, arm: Arm, batch: Batch, on_step: OnStep | None = None) -> Measurement:
        """The arm's pictures of a batch, measured. Raises what loading, drawing, measuring and `on_step` raise, and,
        where the study is strict, InvalidPicture."""
        parts = {
            "measured": self._drawing(arm, batch),
            "reference": self._drawing(self.reference, batch),
            "attributes": [prompt.attributes for prompt in batch.prompts],
            "metrics": [metric.key for metric in self.metrics],
            "curves": self.curves,
            "code": code_digest(),
        }
        return Measurement.of_tensors(self._kept(parts, lambda: self._measure(arm, batch, on_step).tensors()))

    def pictures(self, arm: Arm, batch: Batch, index: int) -> tuple[Tensor, Tensor]:
        """Picture `index` of a batch by the reference and by the arm, float32 [3, H, W] in [0, 1]."""
        parts = {"picture": self._drawing(arm, batch), "index": index}
        kept = self._kept(parts, lambda: {"values": self._draw(arm, batch).values[index]})
        return self._reference(batch).values[index], kept["values"]

    def values(self, arm: Arm, batch: Batch) -> Tensor:
        """All pictures of a batch by an arm, float32 [N, 3, H, W] in [0, 1]; what is no picture may be not finite."""
        return (self._reference(batch) if arm is self.reference else self._draw(arm, batch)).values

    def _measure(self, arm: Arm, batch: Batch, on_step: OnStep | None) -> Measurement:
        reference = self._reference(batch, on_step)
        drawn = reference if arm is self.reference else self._draw(arm, batch, on_step)
        return measure(reference, drawn, batch.prompts, self.metrics, self.backbones, curves=self.curves)

    def _reference(self, batch: Batch, on_step: OnStep | None = None) -> Drawn:
        parts = self._drawing(self.reference, batch)
        kept = self._kept(parts, lambda: _tensors(self._draw(self.reference, batch, on_step)))
        return Drawn(kept["trajectory"], kept["values"])

    def _draw(self, arm: Arm, batch: Batch, on_step: OnStep | None = None) -> Drawn:
        """Draws, or takes what this arm drew last: the reference's is remembered beside the others' where no store
        does that."""
        alone = arm is self.reference and self.store is None
        latest = self._latest.get(alone)
        if latest is not None and latest[0] is arm and latest[1] == batch:
            return latest[2]
        self._latest.pop(alone, None)
        texts = [prompt.text for prompt in batch.prompts]
        drawn = draw(arm.pipeline, texts, arm.seeds(batch.seeds), self.sampling, on_step)
        if self.strict:
            refuse_faults(drawn)
        self._latest[alone] = (arm, batch, drawn)
        return drawn

    def _kept(self, parts: dict[str, Any], make: Callable[[], Tensors]) -> Tensors:
        return make() if self.store is None else self.store.get(key_of(parts), make)

    def _drawing(self, arm: Arm, batch: Batch) -> dict[str, Any]:
        return {
            "arm": arm.identity,
            "prompts": [prompt.text for prompt in batch.prompts],
            "seeds": arm.seeds(batch.seeds),
            "sampling": self.sampling.settings,
        }


def _beat(on_pictures: OnStep, done: int, total: int, *_: int) -> None:
    """After a step of a batch: nothing more is done, but who waits can tell life from a stall, or stop it."""
    on_pictures(done, total)


def _tensors(drawn: Drawn) -> Tensors:
    return {"trajectory": drawn.trajectory, "values": drawn.values}
