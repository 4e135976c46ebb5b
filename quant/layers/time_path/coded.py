"""Projections of the time path with weights of few bits: where more than the timestep enters they stay on disk, and in
some transformers they are a third of all weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from quant.errors import CheckpointError, RecipeMismatch
from quant.layers.moved import Moved
from quant.layers.time_path.path import TimePath
from quant.layers.time_path.per_request import Projection
from quant.quantizers.weight import QuantizedWeight, mse_scale, quantize_weight
from quant.tensor.packing import pack_int4, unpack_int4

TIME_BITS = (4, 8)
"""Bits that such weights can have."""


class CodedProjection(Projection, Moved):
    """Weights of 4 or 8 bits and inputs in floating point, multiplied once a request.

    Buffers, which are also the checkpoint's tensors: `weight` int8 [C, E], or uint8 with two codes a byte, and
    `weight_scale` and, if there is one, `bias`, float32 [C]."""

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor | None

    def __init__(self, in_features: int, out_features: int, bits: int, *, bias: bool) -> None:
        super().__init__()
        if bits not in TIME_BITS:
            raise RecipeMismatch(f"time_bits {bits} is not one of {TIME_BITS}")
        self.in_features, self.out_features, self.bits = in_features, out_features, bits
        packed = torch.zeros(out_features, (in_features + 1) // 2, dtype=torch.uint8)
        whole = torch.zeros(out_features, in_features, dtype=torch.int8)
        self.register_buffer("weight", packed if bits == 4 else whole)
        self.register_buffer("weight_scale", torch.ones(out_features))
        self.register_buffer("bias", torch.zeros(out_features) if bias else None)

    @classmethod
    def like(cls, layer: Any, bits: int) -> CodedProjection:
        """An empty one with the sizes of a linear layer."""
        return cls(layer.in_features, layer.out_features, bits, bias=layer.bias is not None)

    @classmethod
    def of(cls, layer: nn.Linear, bits: int) -> CodedProjection:
        """A linear layer with its weight rounded to the nearest codes, of the scale with the least error."""
        coded = cls.like(layer, bits)
        for name, child in layer.named_children():
            coded.add_module(name, child)
        weight = rounded(layer.weight, bits)
        coded.weight = pack_int4(weight.codes) if bits == 4 else weight.codes
        coded.weight_scale = weight.scale
        if layer.bias is not None:
            coded.bias = layer.bias.detach().float().clone()
        return coded

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """The weight that the codes stand for, [C, E]."""
        codes = unpack_int4(self.weight, (self.out_features, self.in_features)) if self.bits == 4 else self.weight
        return QuantizedWeight(codes, self.weight_scale).dequantize().to(dtype)

    def compute(self, x: Tensor) -> Tensor:
        """The layer itself: [M, E] to [M, C]."""
        return functional.linear(x, self.dequantized(x.dtype), None if self.bias is None else self.bias.to(x.dtype))

    def check(self) -> None:
        """Raises CheckpointError where the scales make no sense."""
        if not bool((self.weight_scale.isfinite() & (self.weight_scale > 0.0)).all()):
            raise CheckpointError("scales of a projection's weight must be positive and finite")


def rounded(weight: Tensor, bits: int) -> QuantizedWeight:
    """The codes of a projection's weight [C, E]."""
    return quantize_weight(weight, bits, mse_scale(weight, bits))


def code(denoiser: nn.Module, path: TimePath, bits: int) -> None:
    """Puts coded projections in place of those in floating point, in place."""
    for name in path.projections:
        layer: Any = denoiser.get_submodule(name)
        if isinstance(layer, CodedProjection):
            continue
        coded_layer = CodedProjection.of(layer, bits)
        if isinstance(layer, Projection):  # the schedule that makes its rows goes on making them
            coded_layer.look_up(layer.schedule)
        denoiser.set_submodule(name, coded_layer)


def lay_out_coded(denoiser: nn.Module, path: TimePath, bits: int) -> None:
    """Puts empty ones there, before their tensors are read."""
    for name in path.projections:
        denoiser.set_submodule(name, CodedProjection.like(denoiser.get_submodule(name), bits))


def coded(denoiser: nn.Module) -> dict[str, CodedProjection]:
    """The coded projections by their full name."""
    return {name: module for name, module in denoiser.named_modules() if isinstance(module, CodedProjection)}


def round_in_place(denoiser: nn.Module, path: TimePath, bits: int) -> None:
    """Gives projections in floating point the weights that codes will stand for."""
    for name in path.projections:
        layer: Any = denoiser.get_submodule(name)
        layer.weight.data = rounded(layer.weight, bits).dequantize().to(layer.weight.dtype)
