"""Min-max: the range ever seen is the range quantized; weights round to the nearest level.

Static per-tensor activations (one scale for all timesteps), per-channel symmetric weights: the baseline that every
other method is measured against."""

from __future__ import annotations

from diffusers import DiffusionPipeline

from contract.recipe import Recipe
from quant.calibration.observation import Progress, observe_inputs
from quant.generation import Sampling
from quant.layers import empty_like, plan_layers, replace_layer
from quant.pipelines import denoiser_of
from quant.quantizers.activation import ActivationParameters
from quant.quantizers.weight import quantize_weight


def quantize(pipeline: DiffusionPipeline, recipe: Recipe, runs: list[Sampling], on_progress: Progress) -> None:
    """Replaces the layers of the pipeline's denoiser, in place, after watching their inputs over `runs`."""
    denoiser = denoiser_of(pipeline)
    plan = plan_layers(denoiser, recipe.weight_bits, recipe.keep_float, recipe.eight_bit)
    ranges = observe_inputs(pipeline, tuple(plan.bits), runs, on_progress)
    for name, bits in plan.bits.items():
        layer = denoiser.get_submodule(name)
        quantized = empty_like(layer, bits)
        activation = ActivationParameters.from_range(ranges[name].low, ranges[name].high)
        quantized.assign(quantize_weight(layer.weight, bits), activation, layer.bias)  # type: ignore[arg-type]
        replace_layer(denoiser, name, quantized)
