"""One round of training: what is trained on, in which order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from contract.stages import FineTuning
from quant.calibration.bench import Bench
from quant.calibration.trajectories import Samples, Trajectories
from quant.calibration.tuning.collection import collect
from quant.calibration.tuning.trainer import Trainer
from quant.sampling.walk import Walk

STAGE = "fine-tuning"
"""What progress calls all of it."""


@dataclass(frozen=True)
class Rounds:
    """Rounds by number, from 0 on, each on trajectories of its own."""

    bench: Bench
    options: FineTuning
    trainer: Trainer

    def run(self, number: int) -> float:
        """Trains one round; returns the mean loss of its updates."""
        with self.bench.seeded(f"{STAGE}-{number}") as generator:
            if self.options.kind == "serial":
                return self._serial(number)
            return self._shuffled(number, generator)

    def _shuffled(self, number: int, generator: torch.Generator) -> float:
        """All steps of the round's trajectories, shuffled."""
        options = self.options
        losses: list[float] = []
        walks = self.bench.walks(options.prompts, first=number * options.prompts)
        told = f"{STAGE}, states of round {number + 1}"
        lessons = collect(self.bench, walks, options, lambda step, total: self.bench.progress(told, step, total))
        updates = options.updates(len(self.bench.timesteps)) // options.rounds
        with self.trainer:
            for _ in range(options.epochs):
                order = torch.randperm(len(lessons), generator=generator)
                for index in order.split(options.batch):
                    losses.append(self.trainer.update(self.trainer.loss(*lessons.batch(index))))
                    note = f"loss {losses[-1]:.3g}"
                    self.bench.progress(f"{STAGE}, round {number + 1}", len(losses), updates, note)
        return sum(losses) / len(losses)

    def _serial(self, number: int) -> float:
        """Every step of a trajectory is an update, in sampling order; the trajectory goes on with the teacher's output
        (EfficientDM, arXiv 2310.03270)."""
        options = self.options
        losses: list[float] = []
        count = options.prompts * options.epochs
        walks = self.bench.walks(count, number * count, batch=options.batch)
        with self.trainer:
            for walk in walks:
                for lesson in self._taught_steps(walk):
                    losses.append(self.trainer.update(self.trainer.loss(*lesson)))
                    updates = len(walks) * len(walk.timesteps)
                    self.bench.progress(f"{STAGE}, round {number + 1}", len(losses), updates)
        return sum(losses) / len(losses)

    def _taught_steps(self, walk: Walk) -> Iterator[tuple[Samples, Tensor]]:
        teacher = self.bench.denoise(self.bench.reference, exact=False)
        while not walk.done:
            state = walk.state
            count, branches = len(state.conditioning), state.conditioning.branches
            with torch.no_grad():
                output = teacher(*state.rows)
            here = Trajectories(state.latents[:, None], state.timestep.float().view(1), state.conditioning)
            yield here.pick(tuple((i, 0) for i in range(count))), torch.stack(output.chunk(branches), dim=1)
            walk.advance(output)
