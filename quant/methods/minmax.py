"""Min-max: the range ever seen is the range quantized; weights round to the nearest level.

Per-tensor activations with one range for all timesteps or one per group of them, per-channel symmetric weights: the
baseline that every other method is measured against."""

from __future__ import annotations

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from contract.recipe import Recipe
from quant.calibration.observation import Observers, Progress, observe
from quant.calibration.preparation import layout_of
from quant.conversion import Parameters, convert
from quant.generation import Sampling
from quant.layout import Layout, attentions, prepare
from quant.observers.minmax import MinMaxObserver
from quant.pipelines import denoiser_of
from quant.quantizers.activation import ActivationParameters, ActivationTable
from quant.quantizers.weight import quantize_weight
from quant.timesteps import TimestepGroups


def quantize(pipeline: DiffusionPipeline, recipe: Recipe, runs: list[Sampling], on_progress: Progress) -> Layout:
    """Replaces the layers of the pipeline's denoiser, in place, after watching their inputs over `runs`; returns how
    the denoiser is laid out now."""
    denoiser = denoiser_of(pipeline)
    layout = layout_of(pipeline, recipe)
    plan = prepare(denoiser, layout)
    multiplied = attentions(denoiser) if layout.attention_bits is not None else {}
    projections = [f"{name}.{part}" for name in multiplied for part in ("to_q", "to_k", "to_v")]
    groups = TimestepGroups(layout.timesteps)
    inputs, outputs = observe(pipeline, plan.bits, projections, groups, runs, on_progress)
    layers = {name: denoiser.get_submodule(name) for name in plan.bits}
    dynamic = {
        name for name, layer in layers.items() if layout.dynamic_activations and isinstance(layer, torch.nn.Linear)
    }
    parameters = Parameters(
        weights={name: quantize_weight(layers[name].weight, bits) for name, bits in plan.bits.items()},  # type: ignore[arg-type]
        inputs={name: _table(inputs[name], recipe.activation_bits) for name in layers if name not in dynamic},
        attention={name: _scales(name, outputs, layout.attention_bits or 8) for name in multiplied},
    )
    convert(denoiser, layout, parameters)
    return layout


def _table(watched: list[MinMaxObserver], bits: int) -> ActivationTable:
    return ActivationTable(tuple(ActivationParameters.from_range(one.low, one.high, bits) for one in watched))


def _scales(attention: str, outputs: Observers, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    top = 2 ** (bits - 1) - 1
    query, key, value = (
        torch.tensor([max(abs(one.low), abs(one.high), 1e-8) / top for one in outputs[f"{attention}.{part}"]])
        for part in ("to_q", "to_k", "to_v")
    )
    return query, key, value
