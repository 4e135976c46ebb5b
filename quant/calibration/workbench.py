"""What all stages of a calibration work on: the reference, its fake-quantized copy, calibration data, and a journal."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from contract.recipe import Recipe
from contract.stages import Stages
from quant.calibration.journal import Journal
from quant.calibration.trajectories import Samples, Trajectories
from quant.checkpoints.layout import Layout, Plan, attentions, replace_layer
from quant.conditioning import guide
from quant.discovery import family_of
from quant.layers.time_path.precalculated import PrecalculatedProjection, projections
from quant.layers.time_path.schedule import Schedule
from quant.layers.timesteps import SampleGroups
from quant.layers.trainable.input import InputQuantizer
from quant.layers.trainable.layer import FakeQuantizedLayer
from quant.sampling.request import Sampling
from quant.sampling.walk import Walk

BATCH = 32
"""Rows that go through a denoiser together where no gradient is needed."""

_TABLE = "time-table/"


class Progress(Protocol):
    """Called with how far a stage is; `note` says what it is at: a unit, a loss."""

    def __call__(self, stage: str, done: int, total: int, note: str = "", /) -> None: ...


@dataclass(frozen=True)
class Run:
    """What calibration draws: prompt i with seed `sampling.seed` + i; the first of them are enough for most stages."""

    prompts: tuple[str, ...]
    sampling: Sampling

    def walks(self, pipeline: DiffusionPipeline, count: int, first: int = 0, batch: int = BATCH // 2) -> list[Walk]:
        """`count` pictures from the `first` on, `batch` together; after the last prompt the first comes again, with
        another seed."""
        seeds = [self.sampling.seed + i for i in range(first, first + count)]
        texts = [self.prompts[i % len(self.prompts)] for i in range(first, first + count)]
        return [
            Walk(pipeline, texts[start : start + batch], seeds[start : start + batch], self.sampling)
            for start in range(0, count, batch)
        ]


class Workbench:
    """`student` has the reference's structure with fake-quantized layers; both know which rows of tables a batch
    takes."""

    def __init__(
        self, pipeline: DiffusionPipeline, recipe: Recipe, stages: Stages, layout: Layout, plan: Plan, run: Run
    ) -> None:
        self.pipeline, self.recipe, self.stages, self.layout = pipeline, recipe, stages, layout
        self.run = run
        self.reference: nn.Module = pipeline.components[family_of(pipeline).denoiser]
        self.groups = SampleGroups(layout.timesteps)
        self.student, self.layers = _fake_quantized(self.reference, plan, recipe, layout, self.groups)
        self.groups.follow(self.student)
        self.journal = Journal(None)
        self.progress: Progress = _silent
        self._trajectories: Trajectories | None = None
        self._samples: Samples | None = None

    def draw(self, trajectories: Trajectories, samples: Samples) -> None:
        """Takes over the calibration inputs."""
        self._trajectories, self._samples = trajectories, samples

    @property
    def drawn(self) -> Trajectories:
        """Trajectories of the calibration prompts."""
        if self._trajectories is None:
            raise RuntimeError("this stage needs calibration inputs, which come first")
        return self._trajectories

    @property
    def picked(self) -> Samples:
        """The states that rounding and shared ranges are fitted to."""
        if self._samples is None:
            raise RuntimeError("this stage needs calibration inputs, which come first")
        return self._samples

    @property
    def quantizers(self) -> dict[str, InputQuantizer]:
        """The input quantizers by the name of the first layer that has them."""
        found: dict[int, str] = {}
        for name, layer in self.layers.items():
            found.setdefault(id(layer.inputs), name)
        return {name: self.layers[name].inputs for name in found.values()}

    @property
    def tables(self) -> dict[str, PrecalculatedProjection]:
        """The student's precalculated time tables by name."""
        return projections(self.student)

    @cached_property
    def timesteps(self) -> list[float]:
        """The sampler's timesteps, in order."""
        return self.run.walks(self.pipeline, 1)[0].timesteps

    def select(self, timesteps: Tensor) -> None:
        """Tells all tables the timesteps [B] of a batch that does not pass through a whole denoiser."""
        self.groups.select(timesteps)
        for schedule in self._schedules:
            schedule.select(timesteps)

    @cached_property
    def _schedules(self) -> list[Schedule]:
        modules = [module for denoiser in (self.student, self.reference) for module in denoiser.modules()]
        found = (getattr(module, "schedule", None) for module in modules)
        return list({id(one): one for one in found if isinstance(one, Schedule)}.values())

    def call(self, denoiser: nn.Module, samples: Samples) -> Tensor:
        """A denoiser's output on samples."""
        return family_of(self.pipeline).call(denoiser, *samples.arguments)

    def guided(self, denoiser: nn.Module, states: Samples) -> Tensor:
        """The outputs that the sampler takes, float32 [states, ...], from those of all guidance branches."""
        output = torch.cat([self.call(denoiser, batch) for batch in states.batches(BATCH)])
        return self.guide(output.unflatten(0, (-1, self.drawn.conditioning.branches)))

    def guide(self, outputs: Tensor) -> Tensor:
        """What the sampler takes, [states, ...], of outputs [states, branches, ...]."""
        return guide(outputs, torch.full((len(outputs),), self.run.sampling.guidance_scale))

    def quantize_weights(self, on: bool) -> None:
        """Makes the student's layers multiply by quantized weights, or by the masters."""
        for layer in self.layers.values():
            layer.weight_quantized = on

    def quantize_inputs(self, on: bool) -> None:
        """Makes the student's layers quantize their inputs, or not."""
        for inputs in self.quantizers.values():
            inputs.enabled = on and not self.layout.dynamic_activations

    @contextmanager
    def float_inputs(self) -> Iterator[None]:
        """The student with inputs that are not quantized."""
        before = {name: inputs.enabled for name, inputs in self.quantizers.items()}
        self.quantize_inputs(False)
        try:
            yield
        finally:
            for name, enabled in before.items():
                self.quantizers[name].enabled = enabled

    @contextmanager
    def seeded(self, piece: str) -> Iterator[torch.Generator]:
        """Random numbers that depend on the recipe's seed and the piece's name, and not on what was drawn before."""
        digest = hashlib.sha256(f"{self.run.sampling.seed}/{piece}".encode()).digest()
        seed = int.from_bytes(digest[:7], "big")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield torch.Generator().manual_seed(seed)

    def parameters_of(self, names: list[str]) -> dict[str, Tensor]:
        """All tensors of these layers, by name: what a journal keeps of them."""
        return {f"{n}.{key}": t for n in names for key, t in self.layers[n].state_dict().items()}

    @property
    def trained(self) -> dict[str, Tensor]:
        """All that training may have changed: the tensors of all layers, and the time tables."""
        tables = {f"{_TABLE}{name}": projection.table for name, projection in self.tables.items()}
        return self.parameters_of(list(self.layers)) | tables

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes over what `parameters_of` or `trained` gave."""
        state: dict[str, dict[str, Tensor]] = {}
        tables = self.tables
        for key, tensor in tensors.items():
            if key.startswith(_TABLE):
                tables[key.removeprefix(_TABLE)].table.data.copy_(tensor)
                continue
            name = next(n for n in _prefixes(key) if n in self.layers)
            state.setdefault(name, {})[key[len(name) + 1 :]] = tensor
        for name, own in state.items():
            self.layers[name].load_state_dict(own)


def _prefixes(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]


def _fake_quantized(
    reference: nn.Module, plan: Plan, recipe: Recipe, layout: Layout, groups: SampleGroups
) -> tuple[nn.Module, dict[str, FakeQuantizedLayer]]:
    student = copy.deepcopy(reference)
    shared = _shared_inputs(student)
    quantizers: dict[str, InputQuantizer] = {}
    layers: dict[str, FakeQuantizedLayer] = {}
    for name, bits in plan.bits.items():
        owner = shared.get(name, name)
        inputs = quantizers.setdefault(owner, InputQuantizer(groups, recipe.activation_bits))
        layer: Any = student.get_submodule(name)
        layers[name] = FakeQuantizedLayer(layer, bits, inputs)
        replace_layer(student, name, layers[name])
    return student, layers


def _shared_inputs(denoiser: nn.Module) -> dict[str, str]:
    """Projections of attention that read the same tensor as another: theirs is the quantizer of that one, so that the
    engine quantizes the tensor once."""
    shared = {}
    for name, attention in attentions(denoiser).items():
        first = "to_k" if attention.is_cross_attention else "to_q"
        for part in {"to_q", "to_k", "to_v"} - {first, "to_q" if attention.is_cross_attention else first}:
            shared[f"{name}.{part}"] = f"{name}.{first}"
    return shared


def _silent(stage: str, done: int, total: int, note: str = "") -> None:
    """Nobody is told."""


def with_bits(layout: Layout, layers: dict[str, FakeQuantizedLayer]) -> Layout:
    """The layout with the bits that the layers have in the end."""
    own = {name: layer.weight_bits for name, layer in layers.items() if layer.weight_bits != layout.weight_bits}
    return replace(layout, layer_bits=own)
