"""What all stages of a calibration work on: the reference, its fake-quantized copy, what is drawn, and a journal."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from contract.recipe import Recipe
from contract.stages import Stages
from quant.calibration.arithmetic import autocast
from quant.calibration.journal import Journal
from quant.calibration.preparation import graph_of
from quant.calibration.run import BATCH, Run
from quant.calibration.student import Student, fake_quantized, shared_inputs
from quant.calibration.trajectories import Samples
from quant.checkpoints.layout import Layout
from quant.conditioning import Rows, guide
from quant.discovery import anatomy_of, family_of
from quant.layers.time_path.coded import round_in_place
from quant.layers.time_path.schedule import Schedule
from quant.layers.timesteps import SampleGroups
from quant.sampling.progress import Progress, silent
from quant.sampling.walk import Denoise, Walk, denoise_with


@dataclass(frozen=True)
class Bench:
    """`reference` is the pipeline's denoiser in floating point, with the graph that will be served; it and the student
    know which rows of tables a batch takes, the `groups`. `first` is the walk of the first picture, at its start.
    `halted` batches of samples may wait in the middle of both denoisers."""

    pipeline: DiffusionPipeline
    recipe: Recipe
    stages: Stages
    run: Run
    layout: Layout
    reference: nn.Module
    student: Student
    groups: SampleGroups
    first: Walk
    journal: Journal = field(default_factory=lambda: Journal(None))
    progress: Progress = silent
    halted: int = 0

    @property
    def timesteps(self) -> list[float]:
        """The sampler's timesteps, in order."""
        return self.first.timesteps

    @property
    def branches(self) -> int:
        """Calls of the denoiser for one picture at one step: two with guidance."""
        return self.first.conditioning.branches

    def walks(self, count: int, first: int = 0, batch: int = BATCH // 2) -> list[Walk]:
        """As `Run.walks`, for this pipeline."""
        return self.run.walks(self.pipeline, count, first, batch)

    def denoise(self, denoiser: nn.Module, *, exact: bool = True) -> Denoise:
        """How walks call a denoiser; not `exact`: in the arithmetic of training, which may round."""
        denoise = denoise_with(self.pipeline, denoiser)
        if exact:
            return denoise

        def rounded(latents: Tensor, timesteps: Tensor, rows: Rows) -> Tensor:
            with autocast():
                return denoise(latents, timesteps, rows).float()

        return rounded

    def call(self, denoiser: nn.Module, samples: Samples) -> Tensor:
        """A denoiser's output on samples."""
        return family_of(self.pipeline).call(denoiser, *samples.arguments)

    def guided(self, denoiser: nn.Module, states: Samples) -> Tensor:
        """The outputs that the sampler takes, float32 [states, ...], from those of all guidance branches."""
        output = torch.cat([self.call(denoiser, batch) for batch in states.batches(BATCH)])
        return self.guide(output.unflatten(0, (-1, self.branches)))

    def guide(self, outputs: Tensor) -> Tensor:
        """What the sampler takes, [states, ...], of outputs [states, branches, ...]."""
        return guide(outputs, torch.full((len(outputs),), self.run.sampling.guidance_scale))

    def select(self, samples: Samples) -> None:
        """Tells all tables of a batch that does not pass through a whole denoiser."""
        self.groups.select(samples.timesteps)
        for denoiser, schedule in self._schedules:
            schedule.prepare(denoiser, samples.timesteps, samples.rows.tensors)

    @cached_property
    def _schedules(self) -> list[tuple[nn.Module, Schedule]]:
        """The schedule of each denoiser that has one."""
        pairs: list[tuple[nn.Module, Schedule]] = []
        for denoiser in (self.student.denoiser, self.reference):
            own = [getattr(module, "schedule", None) for module in denoiser.modules()]
            pairs += [(denoiser, schedule) for schedule in own if isinstance(schedule, Schedule)][:1]
        return pairs

    @contextmanager
    def seeded(self, piece: str) -> Iterator[torch.Generator]:
        """Random numbers that depend on the recipe's seed and the piece's name, and not on what was drawn before."""
        digest = hashlib.sha256(f"{self.run.sampling.seed}/{piece}".encode()).digest()
        seed = int.from_bytes(digest[:7], "big")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield torch.Generator().manual_seed(seed)


def open_bench(pipeline: DiffusionPipeline, recipe: Recipe, stages: Stages, run: Run) -> Bench:
    """The graph as it will be served, in floating point: shortcuts split, time path replaced, both in place; and its
    fake-quantized copy, with nothing quantized yet. Raises RecipeMismatch for what this model cannot follow."""
    layout, plan = graph_of(pipeline, recipe, stages, (run.sampling.width, run.sampling.height))
    family = family_of(pipeline)
    reference: nn.Module = pipeline.components[family.denoiser]
    anatomy, groups = anatomy_of(reference), SampleGroups(layout.timesteps)
    (first,) = run.walks(pipeline, 1)
    shared = shared_inputs(reference, plan.bits, lambda: family.call(reference, *first.state.rows))
    denoiser, layers = fake_quantized(reference, plan.bits, shared, groups, recipe.activation_bits)
    if layout.time_bits is not None:
        round_in_place(denoiser, anatomy.time_path(denoiser), layout.time_bits)
    groups.follow(denoiser, anatomy.clock)
    student = Student(denoiser, layers, dynamic=layout.dynamic_activations)
    return Bench(pipeline, recipe, stages, run, layout, reference, student, groups, first)
