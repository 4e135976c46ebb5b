"""Reconstruction of one unit: its rounding, and if asked its activation scales, by gradient descent on its output."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from quant.calibration.reconstruction.inner_layers import InnerLayers
from quant.calibration.reconstruction.objective import Objective, error
from quant.calibration.reconstruction.trained import Trained
from quant.calibration.reconstruction.unit_data import UnitData
from quant.calibration.reconstruction.units import Unit, call_unit, outputs_of
from quant.calibration.trajectories import Samples
from quant.errors import CalibrationDiverged


def reconstruct(
    unit: Unit,
    reference: nn.Module,
    data: UnitData,
    objective: Objective,
    select: Callable[[Samples], None],
    generator: torch.Generator,
    on_iteration: Callable[[int, float], None] = lambda *_: None,
) -> float:
    """Optimizes the unit in place and hardens its rounding; returns the mean loss of the last tenth of the iterations.

    `select` tells tables of a batch; `reference` is the same unit in floating point; `on_iteration` gets
    how many iterations are done and the loss. Raises
    CalibrationDiverged on a loss that is not finite; the unit is then as it was before."""
    before = {name: tensor.clone() for name, tensor in unit.module.state_dict().items()}
    layers = [layer for layer in unit.layers.values() if layer.weight_quantized]
    trained = Trained(layers, objective)
    inside = InnerLayers(unit, reference) if objective.gamma > 0.0 and unit.is_block else None
    losses: list[float] = []
    with inside or nullcontext():
        for iteration in range(objective.iterations):
            count = len(data.samples)
            index = torch.randint(count, (min(objective.batch, count),), generator=generator)
            select(data.samples[index])
            mixed = data.quantized[index]
            if objective.drop > 0.0:
                mixed = mixed.mixed(data.reference[index], objective.drop, generator)
            if inside is not None:
                inside.run_reference(data.reference[index])
            outputs = outputs_of(call_unit(unit.module, mixed))
            loss = sum_of([error(o, t[index], objective.power) for o, t in zip(outputs, data.outputs, strict=True)])
            if inside is not None:
                loss = loss + objective.gamma * inside.errors()
            value = loss.item()
            if not math.isfinite(value):
                trained.give_up()
                unit.module.load_state_dict(before)
                raise CalibrationDiverged(f"{unit.name}: the loss is {value} at iteration {iteration}")
            losses.append(value)
            trained.step(loss + trained.penalty(iteration))
            on_iteration(iteration + 1, value)
    trained.finish()
    tail = losses[-max(len(losses) // 10, 1) :]
    return sum(tail) / len(tail)


def sum_of(losses: list[Tensor]) -> Tensor:
    """The sum of losses, one or more."""
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()
