"""Watching what goes into the layers while the reference draws pictures."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from diffusers import DiffusionPipeline
from torch import nn

from quant.errors import RecipeMismatch
from quant.generation import OnStep, Sampling, denoise
from quant.observers.minmax import MinMaxObserver
from quant.pipelines import denoiser_of

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""


def observe_inputs(
    pipeline: DiffusionPipeline, layers: tuple[str, ...], runs: list[Sampling], on_progress: Progress
) -> dict[str, MinMaxObserver]:
    """The input range of every named layer over all steps of `runs`.

    Raises RecipeMismatch when a layer never ran, QuantError when an input is not finite."""
    denoiser = denoiser_of(pipeline)
    observers = {name: MinMaxObserver() for name in layers}

    def watch(observer: MinMaxObserver) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _, inputs: observer.observe(inputs[0])

    with ExitStack() as stack:
        for name, observer in observers.items():
            handle = denoiser.get_submodule(name).register_forward_pre_hook(watch(observer))
            stack.callback(handle.remove)
        for done, run in enumerate(runs):
            denoise(pipeline, run, _steps_of(done, len(runs), on_progress))
    silent = [name for name, observer in observers.items() if observer.low > observer.high]
    if silent:
        raise RecipeMismatch(f"{len(silent)} layers never ran while calibrating, the first is {silent[0]}")
    return observers


def _steps_of(done: int, runs: int, on_progress: Progress) -> OnStep:
    return lambda step, total: on_progress("calibrate", done * total + step, runs * total)
