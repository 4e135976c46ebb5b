"""What a denoiser sees while it draws calibration prompts: latents of every step, and samples picked from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from quant.calibration.selection import Selection
from quant.conditioning import Conditioning, Rows
from quant.sampling.walk import Denoise, Walk


@dataclass(frozen=True)
class Samples:
    """Inputs of a denoiser, guidance branches apart: latents float32 [M, ...], timesteps float32 [M] and rows of
    conditioning. The branches of one state lie side by side, the one without the condition first."""

    latents: Tensor
    timesteps: Tensor
    rows: Rows

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, index: Tensor | slice) -> Samples:
        return Samples(self.latents[index], self.timesteps[index], self.rows[index])

    def batches(self, size: int) -> Iterator[Samples]:
        """All samples in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    @property
    def arguments(self) -> tuple[Tensor, Tensor, Rows]:
        """As a denoiser is called."""
        return self.latents, self.timesteps, self.rows


@dataclass(frozen=True)
class Trajectories:
    """N pictures over T steps: latents float32 [N, T, ...] as the model saw them, timesteps [T], and the pictures'
    conditioning."""

    latents: Tensor
    timesteps: Tensor
    conditioning: Conditioning

    def pick(self, selection: Selection) -> Samples:
        """The samples of (trajectory, step) pairs, all guidance branches of each."""
        trajectory, step = torch.tensor(selection, dtype=torch.long).view(-1, 2).unbind(1)
        branches = self.conditioning.branches
        return Samples(
            self.latents[trajectory, step].repeat_interleave(branches, dim=0),
            self.timesteps[step].repeat_interleave(branches),
            self.conditioning.pick(trajectory),
        )


@dataclass(frozen=True)
class Drawn:
    """What stages are fitted to: the trajectories of the calibration prompts, and the states `picked` of them, which
    rounding and shared ranges take."""

    trajectories: Trajectories
    picked: Samples


@torch.no_grad()
def record(walks: list[Walk], denoise: Denoise, on_step: Callable[[int, int], None]) -> Trajectories:
    """Walks to the end; returns what the denoiser saw. `on_step` gets (steps done, steps in all)."""
    total, done, seen = sum(len(walk.timesteps) for walk in walks), 0, []
    for walk in walks:
        steps = []
        while not walk.done:
            state = walk.state
            steps.append(state.latents)
            walk.advance(denoise(*state.rows))
            done += 1
            on_step(done, total)
        seen.append(torch.stack(steps, dim=1))
    conditioning = Conditioning.together([walk.conditioning for walk in walks])
    return Trajectories(torch.cat(seen), torch.tensor(walks[0].timesteps), conditioning)


@torch.no_grad()
def final_latents(walks: list[Walk], denoise: Denoise) -> Tensor:
    """Where walks end, float32 [N, ...], walked to the end."""
    record(walks, denoise, lambda *_: None)
    return torch.cat([walk.latents for walk in walks])
