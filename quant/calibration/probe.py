"""One call of the fake-quantized denoiser, measured: what estimates of memory and time are made of."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quant.calibration.bench import Bench
from quant.calibration.reconstruction.units import find_units, outputs_of
from quant.calibration.trajectories import Samples

FLOAT = 4
"""Bytes of a number."""

TRAINED = 3
"""Rows that pass forward in the time that one with gradients takes, there and back."""

KEPT_FOR_BACKWARD = 3
"""Tensors of an activation's size that the backward pass needs: the value, its quantized form, one in between."""


@dataclass(frozen=True)
class Probe:
    """Elements for one row: of all `activations` together, of the inputs and outputs of the `widest_unit`, of the
    outputs of all units, of the `latents`. Bytes of the `weights`. `seconds` that one row takes.

    And what there is to do: `prompts` in all, sampler `steps`, guidance `branches`, `layers`, and how many
    `trajectories` and network inputs, `samples`, the inputs stage takes of them."""

    weights: int
    activations: int
    widest_unit: int
    unit_outputs: int
    latents: int
    seconds: float
    prompts: int
    steps: int
    branches: int
    layers: int
    trajectories: int
    samples: int

    def drawing(self, pictures: int) -> float:
        """Seconds to draw pictures."""
        return self.seconds * pictures * self.steps * self.branches

    def training(self, iterations: int, rows: int) -> float:
        """Seconds of iterations with gradients, each with so many rows."""
        return self.seconds * TRAINED * iterations * rows

    def reconstructing(self, iterations: int, batch: int) -> float:
        """Seconds to pass all samples through both denoisers and to train every unit."""
        return 2 * self.seconds * self.samples + self.training(iterations, batch)

    def reconstruction_bytes(self, batch: int) -> int:
        """Bytes of the inputs and outputs of one unit over all samples, in three forms, and of a minibatch in
        training."""
        return FLOAT * self.widest_unit * (3 * self.samples + KEPT_FOR_BACKWARD * batch * 4)


@torch.no_grad()
def probe(bench: Bench) -> Probe:
    """Calls the student twice for one row, to find its units and to measure them, and once for all branches of a
    picture, to take the time."""
    latents, timesteps, rows = bench.first.state.rows
    single = Samples(latents[:1], timesteps[:1].float(), rows[slice(0, 1)])
    outputs, widths, produced = _Counts(), _Counts(), _Counts()
    denoiser = bench.student.denoiser
    units = find_units(denoiser, lambda: bench.call(denoiser, single), blocks=True)
    leaves = [(name, module) for name, module in denoiser.named_modules() if not any(module.children())]
    handles = [unit.module.register_forward_hook(widths.both(unit.name), with_kwargs=True) for unit in units]
    handles += [unit.module.register_forward_hook(produced.outputs(unit.name)) for unit in units]
    handles += [module.register_forward_hook(outputs.outputs(name)) for name, module in leaves]
    bench.call(denoiser, single)
    for handle in handles:
        handle.remove()
    prompts, steps, inputs = len(bench.run.prompts), len(bench.timesteps), bench.stages.inputs
    return Probe(
        weights=FLOAT * sum(p.numel() for p in denoiser.parameters()),
        activations=sum(outputs.elements.values()),
        widest_unit=max(widths.elements.values(), default=0),
        unit_outputs=sum(produced.elements.values()),
        latents=single.latents.numel(),
        seconds=_seconds(bench, Samples(latents, timesteps.float(), rows)),
        prompts=prompts,
        steps=steps,
        branches=bench.branches,
        layers=len(bench.student.layers),
        trajectories=inputs.trajectories(prompts),
        samples=inputs.count(prompts, steps) * bench.branches,
    )


class _Counts:
    """Elements by module, counted by hooks."""

    def __init__(self) -> None:
        self.elements: dict[str, int] = {}

    def outputs(self, name: str) -> Any:
        """A hook that counts what a module gives."""

        def count(_: nn.Module, __: Any, output: Any) -> None:
            self.elements[name] = sum(tensor.numel() for tensor in outputs_of(output))

        return count

    def both(self, name: str) -> Any:
        """A hook that counts what a module takes and gives."""

        def count(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            taken = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
            self.elements[name] = sum(tensor.numel() for tensor in (*taken, *outputs_of(output)))

        return count


def _seconds(bench: Bench, samples: Samples) -> float:
    """Of one row among the branches of a picture."""
    began = time.perf_counter()
    bench.call(bench.student.denoiser, samples)
    return (time.perf_counter() - began) / len(samples)
