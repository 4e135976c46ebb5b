"""What all stages of a calibration work on: the reference, its fake-quantized copy, calibration data, and a journal."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator
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
from quant.checkpoints.layout import Layout, Plan, replace_layer
from quant.conditioning import guide
from quant.discovery import anatomy_of, family_of
from quant.layers.time_path.coded import round_in_place
from quant.layers.time_path.delta import Delta, deltas
from quant.layers.time_path.precalculated import PrecalculatedProjection, projections
from quant.layers.time_path.schedule import Schedule
from quant.layers.timesteps import SampleGroups
from quant.layers.trainable.input import InputQuantizer
from quant.layers.trainable.layer import FakeQuantizedLayer
from quant.sampling.progress import silent
from quant.sampling.request import Asked, Sampling
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

    prompts: tuple[Asked, ...]
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
        shared = shared_inputs(self.reference, plan.bits, self._run_once)
        self.student, self.layers = _fake_quantized(self.reference, plan, recipe, shared, self.groups)
        if layout.time_bits is not None:
            round_in_place(self.student, anatomy_of(self.reference).time_path(self.student), layout.time_bits)
        self.groups.follow(self.student, anatomy_of(self.reference).clock)
        self.journal = Journal(None)
        self.progress: Progress = silent
        self._trajectories: Trajectories | None = None
        self._samples: Samples | None = None

    def _run_once(self) -> None:
        latents, timesteps, rows = self.run.walks(self.pipeline, 1)[0].state.rows
        self.call(self.reference, Samples(latents, timesteps, rows))

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
    def tables(self) -> dict[str, PrecalculatedProjection] | dict[str, Delta]:
        """The student's time tables by name: those precalculated, or those added to what is computed once a request."""
        return projections(self.student) or deltas(self.student)

    @cached_property
    def timesteps(self) -> list[float]:
        """The sampler's timesteps, in order."""
        return self.run.walks(self.pipeline, 1)[0].timesteps

    def select(self, samples: Samples) -> None:
        """Tells all tables of a batch that does not pass through a whole denoiser."""
        self.groups.select(samples.timesteps)
        for denoiser, schedule in self._schedules:
            schedule.prepare(denoiser, samples.timesteps, samples.rows.tensors)

    @cached_property
    def _schedules(self) -> list[tuple[nn.Module, Schedule]]:
        found = []
        for denoiser in (self.student, self.reference):
            schedules = [getattr(module, "schedule", None) for module in denoiser.modules()]
            found += [(denoiser, one) for one in schedules if isinstance(one, Schedule)][:1]
        return found

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
    reference: nn.Module, plan: Plan, recipe: Recipe, shared: dict[str, str], groups: SampleGroups
) -> tuple[nn.Module, dict[str, FakeQuantizedLayer]]:
    student = copy.deepcopy(reference)
    quantizers: dict[str, InputQuantizer] = {}
    layers: dict[str, FakeQuantizedLayer] = {}
    for name, bits in plan.bits.items():
        owner = shared.get(name, name)
        inputs = quantizers.setdefault(owner, InputQuantizer(groups, recipe.activation_bits))
        layer: Any = student.get_submodule(name)
        layers[name] = FakeQuantizedLayer(layer, bits, inputs)
        replace_layer(student, name, layers[name])
    return student, layers


@torch.no_grad()
def shared_inputs(denoiser: nn.Module, names: Iterable[str], run: Callable[[], Any]) -> dict[str, str]:
    """Layers that are handed the same tensor as an earlier one of their block, such as the projections of an attention:
    theirs is the quantizer of that one, so that the engine quantizes the tensor once. Found by a `run` of the
    denoiser."""
    blocks = [name for name, module in denoiser.named_modules() if isinstance(module, anatomy_of(denoiser).blocks)]
    read: dict[tuple[int, str], str] = {}
    shared: dict[str, str] = {}
    kept: list[Tensor] = []  # alive, so that no address is given twice

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        block = max((each for each in blocks if name.startswith(f"{each}.")), key=len, default="")

        def look(_: nn.Module, args: tuple[Any, ...]) -> None:
            kept.append(args[0])
            first = read.setdefault((id(args[0]), block), name)
            if block and first != name:
                shared[name] = first

        return look

    handles = [denoiser.get_submodule(name).register_forward_pre_hook(note(name)) for name in names]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return shared


def with_bits(layout: Layout, layers: dict[str, FakeQuantizedLayer]) -> Layout:
    """The layout with the bits that the layers have in the end."""
    own = {name: layer.weight_bits for name, layer in layers.items() if layer.weight_bits != layout.weight_bits}
    return replace(layout, layer_bits=own)
