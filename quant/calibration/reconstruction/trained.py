"""What is trained of one unit: its variables, their optimizer and their schedule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quant.calibration.reconstruction.objective import Objective
from quant.layers.trainable.layer import FakeQuantizedLayer
from quant.layers.trainable.soft_rounding import SoftRounding


class Trained:
    """The rounding variables of layers, and the scales of their inputs where those learn."""

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
        """One step down the gradient."""
        if self._optimizer is None or self._schedule is None:
            return
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._schedule.step()

    def finish(self) -> None:
        """Hardens the rounding and ends the training."""
        for layer in self._layers:
            layer.harden()
        self._rest()

    def give_up(self) -> None:
        """Ends the training, the rounding being what it was before."""
        for layer in self._layers:
            layer.soft = None
        self._rest()

    def _rest(self) -> None:
        for inputs in self._inputs:
            inputs.drop = 0.0
            inputs.log_change.requires_grad_(False)
            inputs.settle()
