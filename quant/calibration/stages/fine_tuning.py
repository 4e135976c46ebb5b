"""Stage: training the quantized denoiser as a whole, in rounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from contract.stages import FineTuning, NoFineTuning
from quant.calibration.arithmetic import autocast
from quant.calibration.stages.bits import most_sensitive
from quant.calibration.trajectories import Samples, Trajectories, record
from quant.calibration.tuning.collection import Lessons, collect
from quant.calibration.tuning.trainer import Trainer
from quant.calibration.workbench import Workbench
from quant.conditioning import Rows
from quant.sampling.walk import Walk, denoise_with

_STAGE = "fine-tuning"


def apply(bench: Workbench) -> None:
    """Serial, parallel or serial-to-parallel training from what the stages before made; undone where it did harm."""
    options = bench.stages.fine_tuning
    if isinstance(options, NoFineTuning):
        return
    sensitive = most_sensitive(bench) if options.freezing == "sensitive" else frozenset()
    trainer = Trainer(bench, options, _updates(bench, options), sensitive)
    validation = _Validation(bench, options)
    start = _resume(bench, options, trainer, validation)
    for done in range(start, options.rounds):
        if done == 0:
            bench.progress(_STAGE, 0, options.rounds, f"error of held-out latents {validation.before:.4g}")
        with bench.seeded(f"{_STAGE}-{done}") as generator:
            loss = _round(bench, options, trainer, done, generator)
        bench.progress(_STAGE, done + 1, options.rounds, f"loss {loss:.4g}")
        bench.journal.once(_piece(done), lambda: _state(bench, trainer, validation))
        bench.journal.forget(_piece(done - 1))
    after = validation.judge()
    bench.progress(_STAGE, options.rounds, options.rounds, f"error of held-out latents {after:.4g}")


def _updates(bench: Workbench, options: FineTuning) -> int:
    """Optimizer steps in all; equal for the three kinds, so that they can be compared."""
    states = options.prompts * len(bench.timesteps)
    return options.rounds * options.epochs * -(-states // options.batch)


def _round(bench: Workbench, options: FineTuning, trainer: Trainer, done: int, generator: torch.Generator) -> float:
    if options.kind == "serial":
        return _serial_round(bench, options, trainer, done)
    lessons = _lessons(bench, options, done)
    losses = []
    with trainer:
        for _ in range(options.epochs):
            order = torch.randperm(len(lessons), generator=generator)
            for index in order.split(options.batch):
                losses.append(trainer.update(trainer.loss(*lessons.batch(index))))
                note = f"loss {losses[-1]:.3g}"
                each = _updates(bench, options) // options.rounds
                bench.progress(f"{_STAGE}, round {done + 1}", len(losses), each, note)
    return sum(losses) / len(losses)


def _lessons(bench: Workbench, options: FineTuning, number: int) -> Lessons:
    walks = bench.run.walks(bench.pipeline, options.prompts, first=number * options.prompts)
    stage = f"{_STAGE}, states of round {number + 1}"
    return collect(bench, walks, options, lambda step, total: bench.progress(stage, step, total))


def _serial_round(bench: Workbench, options: FineTuning, trainer: Trainer, done: int) -> float:
    """Every step of a trajectory is an update, in sampling order; the trajectory goes on with the teacher's output
    (EfficientDM, arXiv 2310.03270)."""
    losses = []
    first = done * options.prompts * options.epochs
    walks = bench.run.walks(bench.pipeline, options.prompts * options.epochs, first, batch=options.batch)
    with trainer:
        for walk in walks:
            for lessons in _taught_steps(bench, walk):
                losses.append(trainer.update(trainer.loss(*lessons)))
                bench.progress(f"{_STAGE}, round {done + 1}", len(losses), len(walks) * len(walk.timesteps))
    return sum(losses) / len(losses)


def _taught_steps(bench: Workbench, walk: Walk) -> Iterator[tuple[Samples, Tensor]]:
    teacher = denoise_with(bench.pipeline, bench.reference)
    while not walk.done:
        state = walk.state
        count, branches = len(state.conditioning), state.conditioning.branches
        with torch.no_grad(), autocast():
            output = teacher(*state.rows).float()
        here = Trajectories(state.latents[:, None], state.timestep.float().view(1), state.conditioning)
        yield here.pick(tuple((i, 0) for i in range(count))), torch.stack(output.chunk(branches), dim=1)
        walk.advance(output)


@dataclass
class _Validation:
    """The student's final latents against the reference's on noise that training does not see: the geometric mean of
    the relative squared errors, which one picture that takes another branch does not decide."""

    bench: Workbench
    options: FineTuning

    def __post_init__(self) -> None:
        self._walks = self.bench.run.walks(self.bench.pipeline, self.options.validation_prompts, first=_FAR)
        self._truth = self._final(student=False)
        self.before = self._error()
        self._start = self._snapshot()

    def judge(self) -> float:
        """The error now. Where it is not below the one before training, the state before training is put back. Rounds
        in between are no candidates: rates fall to nothing in the last one, and a few pictures cannot rank them."""
        after = self._error()
        if not after < self.before:
            self.bench.restore(self._start)
        return after

    def state(self) -> dict[str, Tensor]:
        """What `restore` takes."""
        before = torch.tensor([self.before], dtype=torch.float64)
        return {"before": before} | {f"start/{name}": tensor for name, tensor in self._start.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Goes on from a state."""
        self.before = tensors["before"].item()
        self._start = {key.removeprefix("start/"): t for key, t in tensors.items() if key.startswith("start/")}

    def _error(self) -> float:
        found = self._final(student=True)
        errors = (found - self._truth).flatten(1).pow(2).sum(dim=1) / self._truth.flatten(1).pow(2).sum(dim=1)
        return float(errors.clamp_min(1e-12).log().mean().exp())

    @torch.no_grad()
    def _final(self, *, student: bool) -> Tensor:
        denoise = denoise_with(self.bench.pipeline, self.bench.student if student else self.bench.reference)

        def step(latents: Tensor, timesteps: Tensor, rows: Rows) -> Tensor:
            with autocast():
                return denoise(latents, timesteps, rows).float()

        walks = [walk.again() for walk in self._walks]
        record(walks, step, lambda *_: None)
        return torch.cat([walk.latents for walk in walks])

    def _snapshot(self) -> dict[str, Tensor]:
        return {name: t.clone() for name, t in self.bench.trained.items()}


_FAR = 500_000
"""Seeds of the validation's noise are this far above those of training."""


def _state(bench: Workbench, trainer: Trainer, validation: _Validation) -> dict[str, Tensor]:
    layers = {f"layer/{name}": tensor for name, tensor in bench.trained.items()}
    return layers | {f"trainer/{k}": t for k, t in trainer.state().items()} | validation.state()


def _resume(bench: Workbench, options: FineTuning, trainer: Trainer, validation: _Validation) -> int:
    finished = [done for done in range(options.rounds) if bench.journal.has(_piece(done))]
    if not finished:
        return 0
    tensors = bench.journal.once(_piece(finished[-1]), dict)
    if not tensors:  # the file was damaged
        bench.journal.forget(_piece(finished[-1]))
        return 0
    bench.restore({k.removeprefix("layer/"): t for k, t in tensors.items() if k.startswith("layer/")})
    trainer.restore({k.removeprefix("trainer/"): t for k, t in tensors.items() if k.startswith("trainer/")})
    validation.restore(tensors)
    return finished[-1] + 1


def _piece(done: int) -> str:
    return f"{_STAGE}-{done:04d}"
