"""One optimizer for a whole quantized denoiser: masters, biases, weight and activation scales follow the teacher."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from contract.stages import FineTuning
from quant.calibration.arithmetic import autocast
from quant.calibration.bench import Bench
from quant.calibration.trajectories import Samples
from quant.calibration.tuning.features import Features, feature_errors, mean_error, stages_of
from quant.calibration.tuning.freezing import OscillationFreezing, PlateauFreezing, parameters_of
from quant.errors import CalibrationDiverged

FEATURES_END = 0.8
"""Share of the updates after which the weight of inter-layer distillation falls to 0, linearly."""

WARMUP = 0.1
"""Share of the updates over which the rates rise."""

Trainable = dict[str, Tensor]


class Trainer:
    """Adam over `updates` updates with rates that fall linearly to 0; a context that turns gradients on and off.

    Rates of weights, biases and weight scales are in steps of the layer's weight grid, those of activation scales in
    logarithms. `plateau` freezes blocks whose error no longer falls."""

    def __init__(self, bench: Bench, options: FineTuning, updates: int, sensitive: frozenset[str]) -> None:
        self._bench, self._options, self._updates = bench, options, updates
        self.done = 0
        self._branches = bench.branches
        self._features: tuple[Features, Features] | None = None
        only = sensitive if options.freezing == "sensitive" else None
        self.parameters, groups = _trainable(bench, options, only)
        self._optimizer = torch.optim.Adam(groups, fused=True)
        student = bench.student
        stages = stages_of(student.denoiser) if options.compares_features else ()
        self.plateau = PlateauFreezing({name: parameters_of(student.layers, name) for name in stages})
        self._oscillation = OscillationFreezing(student.layers) if options.freezing == "oscillation" else None

    def __enter__(self) -> Trainer:
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)
        for name in self.plateau.frozen:
            self.plateau.freeze(name)
        if self._options.compares_features:
            self._features = Features(self._bench.student.denoiser), Features(self._bench.reference)
        return self

    def __exit__(self, *_: Any) -> None:
        for features in self._features or ():
            features.close()
        self._features = None
        for parameter in self.parameters.values():
            parameter.requires_grad_(False)

    def loss(self, samples: Samples, targets: Tensor | None = None) -> Tensor:
        """Mean squared error of the outputs of `samples` against `targets` [states, branches, C, H, W], without them
        against the teacher's outputs, with what inter-layer distillation adds."""
        if targets is None or self._features is not None:
            with torch.no_grad(), autocast():
                taught = self._bench.call(self._bench.reference, samples).float()
            targets = taught.unflatten(0, (-1, self._branches)) if targets is None else targets
        with autocast():
            output = self._bench.call(self._bench.student.denoiser, samples)
        loss = self._output_error(output.float(), targets)
        if self._features is None:
            return loss
        errors = feature_errors(*self._features)
        if self._options.freezing == "plateau":
            self.plateau.observe({name: error.item() for name, error in errors.items()})
        return loss + self._feature_weight * mean_error(errors)

    def update(self, loss: Tensor) -> float:
        """One step down the gradient; returns the loss. Raises CalibrationDiverged when it is not finite."""
        value = loss.item()
        if not math.isfinite(value):
            raise CalibrationDiverged(f"fine-tuning: the loss is {value} at update {self.done} of {self._updates}")
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters.values(), self._options.gradient_clip)
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial"] * self._rate
        self._optimizer.step()
        self.done += 1
        if self._oscillation is not None and self.done > self._updates // 2:
            self._oscillation.observe()
        return value

    @property
    def _freezings(self) -> list[PlateauFreezing | OscillationFreezing]:
        return [self.plateau] if self._oscillation is None else [self.plateau, self._oscillation]

    @property
    def frozen(self) -> set[str]:
        """Blocks that train no more."""
        return self.plateau.frozen

    def _output_error(self, output: Tensor, targets: Tensor) -> Tensor:
        difference = output.unflatten(0, targets.shape[:2]) - targets
        if self._options.guided and targets.shape[1] == 2:
            scale = self._bench.run.sampling.guidance_scale
            difference = self._bench.guide(difference) / math.hypot(1.0 - scale, scale)
        return difference.pow(2).mean()

    @property
    def _rate(self) -> float:
        """Share of the full rates: up over the first updates, while Adam knows little, then down to 0."""
        warm = min((self.done + 1) / (WARMUP * self._updates), 1.0)
        return warm * max(1.0 - self.done / self._updates, 0.0)

    @property
    def _feature_weight(self) -> float:
        done = self.done / self._updates
        fade = 1.0 if done < FEATURES_END else max((1.0 - done) / (1.0 - FEATURES_END), 0.0)
        return self._options.feature_weight * fade

    def state(self) -> dict[str, Tensor]:
        """Everything that the next update depends on besides the layers."""
        tensors = {"done": torch.tensor(self.done)}
        for name, parameter in self.parameters.items():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"{name}/{key}"] = torch.as_tensor(value)
        for freezing in self._freezings:
            tensors |= freezing.state()
        return tensors

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes over what `state` gave."""
        self.done = int(tensors["done"])
        for name, parameter in self.parameters.items():
            keys = [key for key in tensors if key.startswith(f"{name}/")]
            if keys:
                self._optimizer.state[parameter] = {k.rpartition("/")[2]: tensors[k].clone() for k in keys}
        for freezing in self._freezings:
            freezing.restore(tensors)


def _trainable(
    bench: Bench, options: FineTuning, only: frozenset[str] | None
) -> tuple[Trainable, list[dict[str, Any]]]:
    """Parameters by name, and their groups: weights and scales have rates of their layer."""
    found: Trainable = {}
    groups: list[dict[str, Any]] = []
    for name, layer in bench.student.layers.items():
        if only is not None and name not in only:
            continue
        step = float(layer.weight_scale.detach().mean())
        for parameter, part, rate in (
            (layer.weight, "weight", options.weight_learning_rate * step),
            (layer.bias, "bias", options.weight_learning_rate * step),
            (layer.weight_scale, "weight_scale", options.weight_scale_learning_rate * step),
        ):
            if parameter is None:
                continue
            found[f"{name}.{part}"] = parameter
            groups.append({"params": [parameter], "lr": rate, "initial": rate})
    if options.time_tables:
        tables = {f"{name}.table": projection.table for name, projection in bench.student.tables.items()}
        found |= tables
        rate = options.time_table_learning_rate
        groups.append({"params": list(tables.values()), "lr": rate, "initial": rate})
    changes = {f"{name}.log_change": q.log_change for name, q in bench.student.quantizers.items() if q.enabled}
    if changes:
        rate = options.activation_learning_rate
        groups.append({"params": list(changes.values()), "lr": rate, "initial": rate})
    return found | changes, groups
