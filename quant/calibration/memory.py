"""How much memory a calibration will take, told before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from contract.stages import AdaRound, EveryStep, FineGrained, FineTuning, LearnedRanges, Nearest, UniformSteps
from quant.calibration.reconstruction.units import find_units, outputs_of
from quant.calibration.trajectories import Samples
from quant.calibration.workbench import BATCH, Workbench
from quant.engine.memory import available_bytes
from quant.errors import NotEnoughMemory

_FLOAT = 4
_TRAINED_COPIES = 7
"""Masters, gradients, two moments of Adam, the state before training, and a state on its way to the journal with it."""

_KEPT_FOR_BACKWARD = 3
"""Tensors of an activation's size that the backward pass needs: the value, its quantized form, one in between."""


def check(bench: Workbench) -> int:
    """The estimate in bytes, after comparing it with what the machine has. Raises NotEnoughMemory, saying both."""
    needed, available = estimate(bench), available_bytes()
    if available is not None and needed > available:
        raise NotEnoughMemory(
            f"this calibration needs about {needed / 2**30:.1f} GiB, {available / 2**30:.1f} GiB are available: "
            "ask for fewer calibration prompts or smaller batches"
        )
    return needed


def estimate(bench: Workbench) -> int:
    """Bytes: the student, what its stages hold at most at one time, and the calibration's trajectories."""
    size = _measure(bench)
    weights = _FLOAT * sum(p.numel() for p in bench.student.parameters())
    options, held = bench.stages, 0
    rounded = not isinstance(options.rounding, Nearest) or isinstance(options.ranges, LearnedRanges)
    if rounded:
        batch = max(_batches(bench), default=1)
        inputs = 3 * _FLOAT * _samples(bench) * size.widest_unit
        held = inputs + _KEPT_FOR_BACKWARD * _FLOAT * batch * size.widest_unit * 4
    if isinstance(options.fine_tuning, FineTuning):
        rows = options.fine_tuning.batch * size.branches
        kept = 1 if options.fine_tuning.target == "student_state" else 1 + size.branches
        states = options.fine_tuning.prompts * size.steps * kept * size.latents * _FLOAT
        activations = _KEPT_FOR_BACKWARD * 2 * rows * size.activations
        held = max(held, (_TRAINED_COPIES - 1) * weights + activations + states)
    trajectories = len(bench.run.prompts) * size.steps * size.latents * _FLOAT
    return weights + held + trajectories + _FLOAT * BATCH * size.widest_unit * 4


def halted_batches(bench: Workbench) -> int:
    """How many batches of samples may stay halted in the middle of both denoisers while units are reconstructed: as
    many as fit beside the rest, where a pass that goes on keeps at most the outputs of all units."""
    available = available_bytes()
    if available is None:
        return 0
    each = 2 * _FLOAT * BATCH * _measure(bench).unit_outputs
    return max(available - estimate(bench), 0) // max(each, 1)


@dataclass(frozen=True)
class _Size:
    """Elements for one sample: of all activations together, of the widest unit's inputs and outputs, of all units'
    outputs, of the latents."""

    activations: int
    widest_unit: int
    unit_outputs: int
    latents: int
    steps: int
    branches: int


@torch.no_grad()
def _measure(bench: Workbench) -> _Size:
    walk = bench.run.walks(bench.pipeline, 1)[0]
    latents, timesteps, rows = walk.state.rows
    one = Samples(latents[:1], timesteps[:1].float(), rows[slice(0, 1)])
    outputs: dict[str, int] = {}
    widths: dict[str, int] = {}
    produced: dict[str, int] = {}

    def makes(name: str, into: dict[str, int]) -> Any:
        def count(_: nn.Module, __: Any, output: Any) -> None:
            into[name] = sum(tensor.numel() for tensor in outputs_of(output))

        return count

    def reaches(name: str) -> Any:
        def count(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            given = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
            widths[name] = sum(tensor.numel() for tensor in (*given, *outputs_of(output)))

        return count

    units = find_units(bench.student, lambda: bench.call(bench.student, one), blocks=True)
    leaves = [(n, m) for n, m in bench.student.named_modules() if not any(m.children())]
    handles = [unit.module.register_forward_hook(reaches(unit.name), with_kwargs=True) for unit in units]
    handles += [unit.module.register_forward_hook(makes(unit.name, produced)) for unit in units]
    handles += [module.register_forward_hook(makes(name, outputs)) for name, module in leaves]
    bench.call(bench.student, one)
    for handle in handles:
        handle.remove()
    return _Size(
        sum(outputs.values()),
        max(widths.values(), default=0),
        sum(produced.values()),
        one.latents.numel(),
        len(walk.timesteps),
        walk.conditioning.branches,
    )


def _batches(bench: Workbench) -> list[int]:
    options = (bench.stages.rounding, bench.stages.ranges)
    return [o.batch for o in options if isinstance(o, AdaRound | FineGrained | LearnedRanges)]


def _samples(bench: Workbench) -> int:
    """Network inputs that units are reconstructed on, both guidance branches counted."""
    options, prompts = bench.stages.inputs, len(bench.run.prompts)
    if isinstance(options, EveryStep):
        count = min(options.prompts, prompts) * len(bench.timesteps)
    elif isinstance(options, UniformSteps):
        count = options.steps * min(options.prompts_per_step, prompts)
    else:
        count = getattr(options, "samples", prompts)
    return 2 * count
