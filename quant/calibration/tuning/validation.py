"""Whether training did any good: the student's final latents on noise that training does not see."""

from __future__ import annotations

import torch
from torch import Tensor

from quant.calibration.bench import Bench
from quant.calibration.trajectories import final_latents

_FAR = 500_000
"""Seeds of the validation's noise are this far above those of training."""


class Validation:
    """Final latents of student and reference: the geometric mean of the relative squared errors, which one picture that
    takes another branch does not decide. `before` is the error when this was made."""

    def __init__(self, bench: Bench, prompts: int) -> None:
        self._bench = bench
        self._walks = bench.walks(prompts, first=_FAR)
        self._truth = self._final(bench.reference)
        self.before = self._error()
        self._start = {name: tensor.clone() for name, tensor in bench.student.trained.items()}

    def judge(self) -> float:
        """The error now. Where it is not below the one before training, the state before training is put back. Rounds
        in between are no candidates: rates fall to nothing in the last one, and a few pictures cannot rank them."""
        after = self._error()
        if not after < self.before:
            self._bench.student.restore(self._start)
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
        latents = self._final(self._bench.student.denoiser)
        errors = (latents - self._truth).flatten(1).pow(2).sum(dim=1) / self._truth.flatten(1).pow(2).sum(dim=1)
        return float(errors.clamp_min(1e-12).log().mean().exp())

    def _final(self, denoiser: torch.nn.Module) -> Tensor:
        return final_latents([walk.again() for walk in self._walks], self._bench.denoise(denoiser, exact=False))
