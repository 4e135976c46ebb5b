"""Reconstruction of one unit: its rounding, and if asked its activation scales, by gradient descent on its output."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quant.calibration.arithmetic import autocast
from quant.calibration.reconstruction.unit_data import UnitData
from quant.calibration.reconstruction.units import Arguments, Unit, outputs_of
from quant.calibration.trajectories import Samples
from quant.errors import CalibrationDiverged
from quant.layers.trainable.layer import FakeQuantizedLayer
from quant.layers.trainable.soft_rounding import SoftRounding


@dataclass(frozen=True)
class Objective:
    """How a unit is reconstructed. `learning_rate` is of the rounding (0: the codes stay), `scale_learning_rate` of the
    activation scales (0: they stay); `regularization` pushes the rounding to 0 or 1 after the share `warmup` of the
    iterations; `gamma` weighs the errors of the layers inside (FBR, arXiv 2401.04585); `drop` is QDrop's probability,
    of floating-point inputs and of floating-point activations alike; `power` is the loss's exponent."""

    iterations: int
    batch: int
    learning_rate: float = 0.0
    scale_learning_rate: float = 0.0
    regularization: float = 0.0
    warmup: float = 0.2
    gamma: float = 0.0
    drop: float = 0.0
    power: float = 2.0


def error(output: Tensor, target: Tensor, power: float = 2.0) -> Tensor:
    """Mean |output - target|^power over all elements, times the channels: the same for every layout of a tensor."""
    channels = target.shape[1] if target.ndim == 4 else target.shape[-1]
    return (output.float() - target).abs().pow(power).mean() * channels


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
    trained = _Trained(layers, objective)
    inner = _InnerLayers(unit, reference) if objective.gamma > 0.0 and unit.is_block else None
    losses: list[float] = []
    for iteration in range(objective.iterations):
        count = len(data.samples)
        index = torch.randint(count, (min(objective.batch, count),), generator=generator)
        select(data.samples[index])
        mixed = data.quantized[index]
        if objective.drop > 0.0:
            mixed = mixed.mixed(data.reference[index], objective.drop, generator)
        if inner is not None:
            inner.run_reference(data.reference[index])
        found = outputs_of(_run(unit.module, mixed))
        loss = sum_of([error(o, t[index], objective.power) for o, t in zip(found, data.outputs, strict=True)])
        if inner is not None:
            loss = loss + objective.gamma * inner.errors()
        value = loss.item()
        if not math.isfinite(value):
            if inner is not None:
                inner.close()
            trained.give_up()
            unit.module.load_state_dict(before)
            raise CalibrationDiverged(f"{unit.name}: the loss is {value} at iteration {iteration}")
        losses.append(value)
        trained.step(loss + trained.penalty(iteration))
        on_iteration(iteration + 1, value)
    if inner is not None:
        inner.close()
    trained.finish()
    tail = losses[-max(len(losses) // 10, 1) :]
    return sum(tail) / len(tail)


def sum_of(losses: list[Tensor]) -> Tensor:
    """The sum of losses, one or more."""
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


def _run(module: nn.Module, arguments: Arguments) -> Any:
    with autocast():
        return module(*arguments.positional, **arguments.named)


class _Trained:
    """The variables of one unit, their optimizers and their schedule."""

    def __init__(self, layers: list[FakeQuantizedLayer], objective: Objective) -> None:
        self._layers, self._objective = layers, objective
        self._inputs = list({id(layer.inputs): layer.inputs for layer in layers if layer.inputs.enabled}.values())
        groups: list[dict[str, Any]] = []
        if objective.learning_rate > 0.0:
            for layer in layers:
                layer.soft = SoftRounding(layer.weight, layer.weight_scale)
            alphas = [layer.soft.alpha for layer in layers if layer.soft is not None]
            groups.append({"params": alphas, "lr": objective.learning_rate})
        if objective.scale_learning_rate > 0.0 and self._inputs:
            changes = [inputs.log_change.requires_grad_(True) for inputs in self._inputs]
            groups.append({"params": changes, "lr": objective.scale_learning_rate})
        for inputs in self._inputs:
            inputs.drop = objective.drop
        self._optimizer = torch.optim.Adam(groups, lr=1e-3, fused=True) if groups else None
        self._schedule = None
        if self._optimizer is not None:
            self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, objective.iterations)

    def penalty(self, iteration: int) -> Tensor | float:
        """AdaRound's regularizer; its exponent falls from 20 to 2 after the warm-up."""
        done = iteration / self._objective.iterations
        if self._objective.regularization == 0.0 or done < self._objective.warmup:
            return 0.0
        share = (done - self._objective.warmup) / max(1.0 - self._objective.warmup, 1e-9)
        penalties = [layer.soft.penalty(20.0 - 18.0 * share) for layer in self._layers if layer.soft is not None]
        return self._objective.regularization * sum(penalties)

    def step(self, loss: Tensor) -> None:
        if self._optimizer is None or self._schedule is None:
            return
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._schedule.step()

    def finish(self) -> None:
        for layer in self._layers:
            layer.harden()
        self._rest()

    def give_up(self) -> None:
        for layer in self._layers:
            layer.soft = None
        self._rest()

    def _rest(self) -> None:
        for inputs in self._inputs:
            inputs.drop = 0.0
            inputs.log_change.requires_grad_(False)
            inputs.settle()


class _InnerLayers:
    """Outputs of a unit's layers but the last in module order, in both forms."""

    def __init__(self, unit: Unit, reference: nn.Module) -> None:
        self._reference = reference
        self._targets: dict[str, Tensor] = {}
        self._outputs: dict[str, Tensor] = {}
        self._stack = ExitStack()
        for name in list(unit.layers)[:-1]:
            for module, found in ((unit.module, self._outputs), (reference, self._targets)):
                handle = module.get_submodule(name).register_forward_hook(self._note(found, name))
                self._stack.callback(handle.remove)

    @staticmethod
    def _note(found: dict[str, Tensor], name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def note(_: nn.Module, __: Any, output: Tensor) -> None:
            found[name] = output

        return note

    @torch.no_grad()
    def run_reference(self, arguments: Arguments) -> None:
        _run(self._reference, arguments)

    def errors(self) -> Tensor:
        """The sum of the layers' errors. Targets are the reference's, on the reference's input."""
        return torch.stack([error(self._outputs[n], self._targets[n].float()) for n in self._targets]).sum()

    def close(self) -> None:
        self._stack.close()
