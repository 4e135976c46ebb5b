"""From a denoiser in floating point to one on integers, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor, nn

from quant.checkpoints.layout import (
    Layout,
    attentions,
    bits_of,
    empty_like,
    finish,
    prepare,
    quantized_layers,
    replace_layer,
)
from quant.discovery import anatomy_of
from quant.layers.attention import AttentionProducts
from quant.layers.diffusers_methods import unmark
from quant.layers.fusion import fuse, unfuse
from quant.layers.output_correction import detach
from quant.layers.shortcut import SplitConv2d
from quant.layers.time_path.coded import code
from quant.quantizers.activation import ActivationTable
from quant.quantizers.weight import QuantizedWeight, quantize_weight


@dataclass(frozen=True)
class Parameters:
    """What calibration found: weights and input tables by layer (no table: dynamic), and, by attention module, the
    scales of query, key and value, float32 [T] each."""

    weights: Mapping[str, QuantizedWeight]
    inputs: Mapping[str, ActivationTable]
    attention: Mapping[str, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)


def convert(denoiser: nn.Module, layout: Layout, parameters: Parameters) -> None:
    """Replaces the layers named in `parameters.weights` by quantized ones and fuses the blocks, all in place.

    The shortcuts must have been split by `prepare` before. Raises CheckpointError where a parameter makes no sense."""
    for name, weight in parameters.weights.items():
        layer = denoiser.get_submodule(name)
        bits = bits_of(layout, name)
        quantized = empty_like(layer, bits, layout)
        quantized.assign(weight, parameters.inputs.get(name), layer.bias)  # type: ignore[arg-type]
        replace_layer(denoiser, name, quantized)
    for name, scales in parameters.attention.items():
        products = AttentionProducts(layout.attention_bits or 8, layout.softmax_bits)
        products.assign(*scales)
        denoiser.get_submodule(name).products = products
    if layout.time_bits is not None:
        code(denoiser, anatomy_of(denoiser).time_path(denoiser), layout.time_bits)
    finish(denoiser, layout)
    for layer in quantized_layers(denoiser).values():
        layer.check()
    fuse(denoiser)


def quantize_dynamically(denoiser: nn.Module, layout: Layout) -> Layout:
    """Quantizes the linear layers in place without any data: nearest weight codes, a scale for every token.
    Convolutions stay floating point, since their kernels take calibrated scales. Returns the layout with them in
    `keep_float`."""
    convolutions = tuple(name for name, module in denoiser.named_modules() if isinstance(module, nn.Conv2d))
    layout = replace(layout, keep_float=(*layout.keep_float, *convolutions), dynamic_activations=True)
    plan = prepare(denoiser, layout)
    weights = {name: quantize_weight(denoiser.get_submodule(name).weight, bits) for name, bits in plan.bits.items()}  # type: ignore[arg-type]
    convert(denoiser, layout, Parameters(weights, inputs={}))
    return layout


def dequantize(denoiser: nn.Module) -> nn.Module:
    """Puts floating-point layers, with the weights that the codes stand for, in place of the quantized ones. The output
    correction goes, since it speaks of the quantized ones; tables of a precalculated time path stay."""
    unfuse(denoiser)
    unmark(denoiser)
    detach(denoiser)
    for name, layer in quantized_layers(denoiser).items():
        replace_layer(denoiser, name, layer.dequantized())
    for name, module in list(denoiser.named_modules()):
        if isinstance(module, SplitConv2d):
            replace_layer(denoiser, name, module.joined())
    for attention in attentions(denoiser):
        unmark(attention)
        if hasattr(attention, "products"):
            del attention.products
            attention.set_processor(AttnProcessor2_0())
    return denoiser
