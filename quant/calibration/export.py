"""The end of a calibration: the student's codes and tables in integer layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from quant.calibration.bench import Bench
from quant.calibration.observed import observed_samples
from quant.calibration.trajectories import Drawn
from quant.checkpoints.conversion import Parameters, convert
from quant.checkpoints.layout import Layout
from quant.discovery import anatomy_of
from quant.layers.attention import PROJECTIONS
from quant.layers.output_correction import attach
from quant.tensor.affine import signed_top


def export(bench: Bench, drawn: Drawn) -> Layout:
    """Turns the pipeline's denoiser into an integer one, in place; returns how it is laid out."""
    student, layers = bench.student, bench.student.layers
    own_bits = {n: layer.weight_bits for n, layer in layers.items() if layer.weight_bits != bench.layout.weight_bits}
    layout = replace(bench.layout, layer_bits=own_bits, output_correction=student.correction is not None)
    dynamic = {name for name, layer in layers.items() if layout.dynamic_activations and layer.window is None}
    parameters = Parameters(
        weights={name: layer.export() for name, layer in layers.items()},
        inputs={name: layer.inputs.table for name, layer in layers.items() if name not in dynamic},
        attention=_attention_scales(bench, drawn) if layout.attention_bits is not None else {},
    )
    bench.reference.requires_grad_(False)
    _take_over(bench)
    if student.correction is not None:
        attach(bench.reference, student.correction)
    convert(bench.reference, layout, parameters)
    return layout


def _take_over(bench: Bench) -> None:
    """Biases and time tables stay in floating point, and may have been trained."""
    for name, layer in bench.student.layers.items():
        if layer.bias is not None:
            bench.reference.get_submodule(name).bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
    for name, projection in bench.student.tables.items():
        bench.reference.get_submodule(name).table = projection.table.detach().clone()


@torch.no_grad()
def _attention_scales(bench: Bench, drawn: Drawn) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """The largest magnitudes of query, key and value in the finished student, as symmetric scales."""
    top = signed_top(bench.layout.attention_bits or 8)
    denoiser = bench.student.denoiser
    names: list[str] = list(anatomy_of(denoiser).attentions(denoiser))
    largest = {f"{name}.{part}": torch.zeros(len(bench.groups)) for name in names for part in PROJECTIONS}

    def watch(seen: Tensor) -> Callable[[nn.Module, Any, Tensor], None]:
        def note(_: nn.Module, __: Any, output: Tensor) -> None:
            rows = bench.groups.rows(len(output))
            seen.index_reduce_(0, rows, output.float().abs().flatten(1).amax(dim=1), "amax")

        return note

    handles = [denoiser.get_submodule(n).register_forward_hook(watch(seen)) for n, seen in largest.items()]
    for batch in observed_samples(bench, drawn):
        bench.call(denoiser, batch)
    for handle in handles:
        handle.remove()
    scales = {name: (seen / top).clamp_min(1e-8) for name, seen in largest.items()}
    query, key, value = PROJECTIONS
    return {name: (scales[f"{name}.{query}"], scales[f"{name}.{key}"], scales[f"{name}.{value}"]) for name in names}
