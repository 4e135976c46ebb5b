"""The last stage: the student's codes and tables in integer layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from quant.calibration.stages.ranges import batches
from quant.calibration.workbench import Workbench, with_bits
from quant.checkpoints.conversion import Parameters, convert
from quant.checkpoints.layout import Layout
from quant.discovery import anatomy_of
from quant.layers.output_correction import OutputCorrection, attach


def export(bench: Workbench, correction: OutputCorrection | None) -> Layout:
    """Turns the pipeline's denoiser into an integer one, in place; returns how it is laid out."""
    layout = replace(with_bits(bench.layout, bench.layers), output_correction=correction is not None)
    scales = _attention_scales(bench) if layout.attention_bits is not None else {}
    dynamic = {name for name, layer in bench.layers.items() if layout.dynamic_activations and layer.window is None}
    parameters = Parameters(
        weights={name: layer.export() for name, layer in bench.layers.items()},
        inputs={name: layer.inputs.table for name, layer in bench.layers.items() if name not in dynamic},
        attention=scales,
    )
    bench.reference.requires_grad_(False)
    _take_over(bench)
    if correction is not None:
        attach(bench.reference, correction)
    convert(bench.reference, layout, parameters)
    return layout


def _take_over(bench: Workbench) -> None:
    """Biases and time tables stay in floating point, and may have been trained."""
    for name, layer in bench.layers.items():
        if layer.bias is not None:
            bench.reference.get_submodule(name).bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
    for name, projection in bench.tables.items():
        bench.reference.get_submodule(name).table = projection.table.detach().clone()


@torch.no_grad()
def _attention_scales(bench: Workbench) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """The largest magnitudes of query, key and value in the finished student, as symmetric scales."""
    top = 2 ** ((bench.layout.attention_bits or 8) - 1) - 1
    names: list[str] = list(anatomy_of(bench.student).attentions(bench.student))
    largest = {f"{name}.{part}": torch.zeros(len(bench.groups)) for name in names for part in ("to_q", "to_k", "to_v")}

    def watch(seen: Tensor) -> Callable[[nn.Module, Any, Tensor], None]:
        def note(_: nn.Module, __: Any, output: Tensor) -> None:
            rows = bench.groups.rows(len(output))
            seen.index_reduce_(0, rows, output.float().abs().flatten(1).amax(dim=1), "amax")

        return note

    handles = [bench.student.get_submodule(n).register_forward_hook(watch(seen)) for n, seen in largest.items()]
    for batch in batches(bench):
        bench.call(bench.student, batch)
    for handle in handles:
        handle.remove()
    scales = {name: (seen / top).clamp_min(1e-8) for name, seen in largest.items()}
    return {name: (scales[f"{name}.to_q"], scales[f"{name}.to_k"], scales[f"{name}.to_v"]) for name in names}
