"""The serial phase: trajectories of the student as it is, with what the teacher says at every state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from contract.stages import FineTuning
from quant.calibration.arithmetic import autocast
from quant.calibration.trajectories import Samples, Trajectories, record
from quant.calibration.walk import Walk, denoise_with
from quant.calibration.workbench import Workbench


@dataclass(frozen=True)
class Lessons:
    """The states of N pictures at T steps, and the teacher's outputs there, float32 [N, T, branches, C, H, W]."""

    trajectories: Trajectories
    targets: Tensor

    def __len__(self) -> int:
        return self.trajectories.latents.shape[0] * self.trajectories.latents.shape[1]

    def batch(self, index: Tensor) -> tuple[Samples, Tensor]:
        """The samples of states, branches side by side, and their targets [states, branches, C, H, W]."""
        steps = self.trajectories.latents.shape[1]
        pairs = torch.stack([index // steps, index % steps], dim=1)
        samples = self.trajectories.pick(tuple((int(i), int(k)) for i, k in pairs))
        return samples, self.targets[index // steps, index % steps]


@torch.no_grad()
def collect(bench: Workbench, walks: list[Walk], options: FineTuning, on_step: Callable[[int, int], None]) -> Lessons:
    """Walks with the student, or in `parallel` training with the teacher, and asks the teacher at every state for its
    output: at that state (`student_state`), or at the state where its own trajectory is at that step
    (`reference_trajectory`)."""
    by_student = options.kind != "parallel"
    walking = denoise_with(bench.pipeline, bench.student if by_student else bench.reference)
    teacher = denoise_with(bench.pipeline, bench.reference)
    taught: list[Tensor] = []

    def step(latents: Tensor, timesteps: Tensor, conditioning: Tensor) -> Tensor:
        with autocast():
            output = walking(latents, timesteps, conditioning).float()
            taught.append(teacher(latents, timesteps, conditioning).float() if by_student else output)
        return output

    drawn = record(walks, step, on_step)
    if options.target == "reference_trajectory":
        taught = _teacher_outputs(bench, walks)
    branches, steps = drawn.conditioning.shape[1], drawn.latents.shape[1]
    return Lessons(drawn, _by_state(taught, branches, steps))


def _teacher_outputs(bench: Workbench, walks: list[Walk]) -> list[Tensor]:
    teacher = denoise_with(bench.pipeline, bench.reference)
    outputs: list[Tensor] = []

    def step(latents: Tensor, timesteps: Tensor, conditioning: Tensor) -> Tensor:
        with autocast():
            outputs.append(teacher(latents, timesteps, conditioning).float())
        return outputs[-1]

    record([walk.again() for walk in walks], step, lambda *_: None)
    return outputs


def _by_state(outputs: list[Tensor], branches: int, steps: int) -> Tensor:
    """[N, T, branches, C, H, W] of one output for every step of every batch, branch after branch."""
    batches = [torch.stack(outputs[i : i + steps], dim=1) for i in range(0, len(outputs), steps)]
    return torch.cat([torch.stack(batch.chunk(branches), dim=2) for batch in batches])
