"""Watching what goes into the layers, and into attention, while the reference draws pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

from diffusers import DiffusionPipeline
from torch import Tensor, nn

from quant.errors import RecipeMismatch
from quant.generation import OnStep, Sampling, denoise
from quant.observers.minmax import MinMaxObserver
from quant.pipelines import denoiser_of
from quant.timesteps import TimestepGroups

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""

Observers = dict[str, list[MinMaxObserver]]
"""By name, one observer for each group of timesteps."""


def observe(
    pipeline: DiffusionPipeline,
    inputs_of: Iterable[str],
    outputs_of: Iterable[str],
    groups: TimestepGroups,
    runs: list[Sampling],
    on_progress: Progress,
) -> tuple[Observers, Observers]:
    """The ranges of the inputs and of the outputs of the named layers over all steps of `runs`, by group of timesteps.

    Raises RecipeMismatch when a layer never ran, QuantError when a value is not finite."""
    denoiser = denoiser_of(pipeline)
    inputs: Observers = {name: [MinMaxObserver() for _ in range(len(groups))] for name in inputs_of}
    outputs: Observers = {name: [MinMaxObserver() for _ in range(len(groups))] for name in outputs_of}

    def before(watched: list[MinMaxObserver]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _, arguments: watched[groups.current].observe(arguments[0])

    def after(watched: list[MinMaxObserver]) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda _, __, output: watched[groups.current].observe(output)

    with ExitStack() as stack:
        stack.callback(groups.follow(denoiser).remove)
        for name, watched in inputs.items():
            stack.callback(denoiser.get_submodule(name).register_forward_pre_hook(before(watched)).remove)
        for name, watched in outputs.items():
            stack.callback(denoiser.get_submodule(name).register_forward_hook(after(watched)).remove)
        for done, run in enumerate(runs):
            denoise(pipeline, run, _steps_of(done, len(runs), on_progress))
    silent = [name for name, watched in (inputs | outputs).items() if any(one.low > one.high for one in watched)]
    if silent:
        raise RecipeMismatch(f"{len(silent)} layers never ran while calibrating, the first is {silent[0]}")
    return inputs, outputs


def _steps_of(done: int, runs: int, on_progress: Progress) -> OnStep:
    return lambda step, total: on_progress("calibrate", done * total + step, runs * total)
