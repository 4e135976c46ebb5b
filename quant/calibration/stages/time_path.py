"""Stage: what becomes of the layers that only the timestep passes through."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from contract.stages import Keep, PerRequest, Precalculate, Tiar
from quant.calibration.bench import Bench
from quant.calibration.stage import Kinds, Stage
from quant.calibration.trajectories import Drawn
from quant.discovery import anatomy_of
from quant.errors import CalibrationDiverged, RecipeMismatch
from quant.layers.time_path.path import TimePath, in_batch
from quant.layers.trainable.layer import FakeQuantizedLayer
from quant.layers.trainable.soft_rounding import SoftRounding

PICTURES = 8
"""Calibration pictures whose conditioning stands for all, where more than the timestep enters the time path."""


class _Tiar(Stage[Tiar]):
    """Optimizes the rounding of the time layers together (TIAR); other choices were made with the graph."""

    def check(self, options: Tiar, bench: Bench) -> None:
        if not _layers(bench):
            raise RecipeMismatch(
                "tiar: all layers of the time path are kept in floating point, so nothing can be rounded"
            )

    def apply(self, options: Tiar, bench: Bench, drawn: Drawn) -> None:
        layers = _layers(bench)

        def work() -> dict[str, Tensor]:
            with bench.student.float_inputs():
                _reconstruct(bench, drawn, options, list(layers.values()))
            return bench.student.parameters_of(layers)

        bench.student.restore(bench.journal.once("tiar", work))


STAGE = Kinds({Keep: Stage(), Tiar: _Tiar(), Precalculate: Stage(), PerRequest: Stage()})


def _path(bench: Bench) -> TimePath:
    return anatomy_of(bench.reference).time_path(bench.reference)


def _layers(bench: Bench) -> dict[str, FakeQuantizedLayer]:
    path = _path(bench)
    return {name: layer for name, layer in bench.student.layers.items() if path.has(name)}


def _reconstruct(bench: Bench, drawn: Drawn, options: Tiar, layers: list[FakeQuantizedLayer]) -> None:
    """Minimizes the summed squared error of all projections over the sampler's timesteps (TFMQ-DM, arXiv 2311.16503,
    equation 7), with AdaRound's regularizer. Where more than the timestep enters, over the timesteps of as many
    calibration pictures as the inputs are taken from."""
    path = _path(bench)
    timesteps, request = temporal_inputs(bench, drawn, path)
    with torch.no_grad():
        targets = path.rows(bench.reference, timesteps, request)
    for layer in layers:
        layer.soft = SoftRounding(layer.weight, layer.weight_scale)
    alphas = [layer.soft.alpha for layer in layers if layer.soft is not None]
    optimizer = torch.optim.Adam(alphas, lr=options.learning_rate)
    for iteration in range(options.iterations):
        features = path.rows(bench.student.denoiser, timesteps, request)
        loss = torch.stack([(features[n] - t).pow(2).sum(dim=1).mean() for n, t in targets.items()]).sum()
        if not math.isfinite(loss.item()):
            raise CalibrationDiverged(f"time path: the loss is {loss.item()} at iteration {iteration}")
        share = iteration / options.iterations
        penalties = sum(layer.soft.penalty(20.0 - 18.0 * share) for layer in layers if layer.soft is not None)
        optimizer.zero_grad(set_to_none=True)
        (loss + options.regularization * penalties * (share >= 0.2)).backward()  # type: ignore[union-attr]
        optimizer.step()
        if iteration % 10 == 9:
            bench.progress("time path", iteration + 1, options.iterations, f"loss {loss.item():.3g}")
    for layer in layers:
        layer.harden()


def temporal_inputs(bench: Bench, drawn: Drawn, path: TimePath) -> tuple[Tensor, dict[str, Tensor]]:
    """The sampler's timesteps [T], or where conditioning enters beside them, as many rows for each of some pictures."""
    timesteps = sorted(set(bench.timesteps))
    conditioning = drawn.trajectories.conditioning
    pictures = torch.arange(min(len(conditioning), PICTURES))
    request = path.gather(conditioning.pick(pictures).tensors)
    like = next(bench.reference.parameters())
    return in_batch(timesteps, request, like)
