"""Which layers of a denoiser are quantized, with how many bits, and their replacement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from quant.errors import RecipeMismatch
from quant.modules.conv import QuantizedConv2d
from quant.modules.layer import QuantizedLayer
from quant.modules.linear import QuantizedLinear


@dataclass(frozen=True)
class Plan:
    """The bits of every quantized layer and the names of the layers that stay in floating point."""

    bits: dict[str, int]
    float_layers: tuple[str, ...]


def plan_layers(
    denoiser: nn.Module, weight_bits: int, keep_float: Sequence[str] = (), eight_bit: Sequence[str] = ()
) -> Plan:
    """Goes through all linear and convolution layers; patterns are fnmatch on the module's full name.

    Raises RecipeMismatch when a pattern matches no layer or when nothing is left to quantize."""
    names = [name for name, module in denoiser.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    for pattern in (*keep_float, *eight_bit):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise RecipeMismatch(f"pattern {pattern!r} matches no layer of this model")
    kept = tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in keep_float))
    bits = {
        name: 8 if any(fnmatchcase(name, pattern) for pattern in eight_bit) else weight_bits
        for name in names
        if name not in set(kept)
    }
    if not bits:
        raise RecipeMismatch("keep_float leaves no layer to quantize")
    return Plan(bits, kept)


def empty_like(layer: nn.Module, weight_bits: int) -> QuantizedLayer:
    """An empty quantized layer with the sizes of a linear or convolution layer."""
    if isinstance(layer, nn.Linear):
        return QuantizedLinear.like(layer, weight_bits)
    if isinstance(layer, nn.Conv2d):
        return QuantizedConv2d.like(layer, weight_bits)
    raise RecipeMismatch(f"{type(layer).__name__} cannot be quantized: linear and 2-d convolution layers can")


def replace_layer(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Puts `layer` in place of the submodule called `name`, in place."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


def quantized_layers(model: nn.Module) -> dict[str, QuantizedLayer]:
    """All quantized layers by their full name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, QuantizedLayer)}
