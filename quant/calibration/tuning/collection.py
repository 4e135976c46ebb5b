"""The serial phase: trajectories of the student as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from contract.stages import FineTuning
from quant.calibration.bench import Bench
from quant.calibration.trajectories import Samples, Trajectories, record
from quant.conditioning import Rows
from quant.sampling.walk import Denoise, Walk


@dataclass(frozen=True)
class Lessons:
    """The states of N pictures at T steps; and the teacher's outputs there where they are not those at the state
    itself, float32 [N, T, branches, C, H, W]."""

    trajectories: Trajectories
    targets: Tensor | None = None

    def __len__(self) -> int:
        return self.trajectories.latents.shape[0] * self.trajectories.latents.shape[1]

    def batch(self, index: Tensor) -> tuple[Samples, Tensor | None]:
        """The samples of states, branches side by side, and their targets [states, branches, C, H, W]."""
        states, steps = index // self.trajectories.latents.shape[1], index % self.trajectories.latents.shape[1]
        samples = self.trajectories.pick(tuple(zip(states.tolist(), steps.tolist(), strict=True)))
        return samples, None if self.targets is None else self.targets[states, steps]


@torch.no_grad()
def collect(bench: Bench, walks: list[Walk], options: FineTuning, on_step: Callable[[int, int], None]) -> Lessons:
    """Walks with the student, or in `parallel` training with the teacher. The teacher is asked for its output at these
    states while training (`student_state`), or here at those where its own trajectory is (`reference_trajectory`)."""
    walking = bench.reference if options.kind == "parallel" else bench.student.denoiser
    drawn = record(walks, bench.denoise(walking, exact=False), on_step)
    if options.target == "student_state":
        return Lessons(drawn)
    taught: list[Tensor] = []
    record(
        [walk.again() for walk in walks], _kept(bench.denoise(bench.reference, exact=False), taught), lambda *_: None
    )
    branches, steps = drawn.conditioning.branches, drawn.latents.shape[1]
    return Lessons(drawn, _by_state(taught, branches, steps))


def _kept(denoise: Denoise, outputs: list[Tensor]) -> Denoise:
    """Adds every output to `outputs`."""

    def step(latents: Tensor, timesteps: Tensor, rows: Rows) -> Tensor:
        outputs.append(denoise(latents, timesteps, rows))
        return outputs[-1]

    return step


def _by_state(outputs: list[Tensor], branches: int, steps: int) -> Tensor:
    """[N, T, branches, C, H, W] of one output for every step of every batch, branch after branch."""
    batches = [torch.stack(outputs[i : i + steps], dim=1) for i in range(0, len(outputs), steps)]
    return torch.cat([torch.stack(batch.chunk(branches), dim=2) for batch in batches])
