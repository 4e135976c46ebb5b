"""Stage: what becomes of the layers that only the timestep passes through."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from contract.stages import Tiar
from quant.calibration.workbench import Workbench
from quant.errors import CalibrationDiverged
from quant.layers.time_path.embedding import is_time_layer
from quant.layers.trainable.layer import FakeQuantizedLayer
from quant.layers.trainable.soft_rounding import SoftRounding


def apply(bench: Workbench) -> None:
    """Optimizes the rounding of the time layers together (TIAR); other choices were made with the graph."""
    options = bench.stages.time_path
    if not isinstance(options, Tiar):
        return
    layers = {name: layer for name, layer in bench.layers.items() if is_time_layer(name)}

    def work() -> dict[str, Tensor]:
        with bench.float_inputs():
            _reconstruct(bench, options, list(layers.values()))
        return bench.parameters_of(list(layers))

    if layers:
        bench.restore(bench.journal.once("tiar", work))


def _reconstruct(bench: Workbench, options: Tiar, layers: list[FakeQuantizedLayer]) -> None:
    """Minimizes the summed squared error of all projections over the sampler's timesteps (TFMQ-DM, arXiv 2311.16503,
    equation 7), with AdaRound's regularizer."""
    timesteps = torch.tensor(sorted(set(bench.timesteps)))
    with torch.no_grad():
        targets = temporal_features(bench.reference, timesteps)
    for layer in layers:
        layer.soft = SoftRounding(layer.weight, layer.weight_scale)
    alphas = [layer.soft.alpha for layer in layers if layer.soft is not None]
    optimizer = torch.optim.Adam(alphas, lr=options.learning_rate)
    for iteration in range(options.iterations):
        features = temporal_features(bench.student, timesteps)
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


def temporal_features(denoiser: Any, timesteps: Tensor) -> dict[str, Tensor]:
    """What every residual block receives from the timesteps [T]: float32 [T, C] by the projection's name."""
    embedding = denoiser.time_embedding(denoiser.time_proj(timesteps).float())
    blocks: dict[str, nn.Module] = {n: m for n, m in denoiser.named_modules() if getattr(m, "time_emb_proj", None)}
    project: Callable[[Any], Tensor] = lambda block: block.time_emb_proj(block.nonlinearity(embedding))  # noqa: E731
    return {f"{name}.time_emb_proj": project(block) for name, block in blocks.items()}
