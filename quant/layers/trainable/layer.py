"""Layers in floating point whose weight and input pass through their quantizers.

Executed by the integer engine, a layer gives the same output as its fake-quantized form, up to the order of sums."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from quant.errors import RecipeMismatch
from quant.layers.trainable.fake_quantize import fake_quantize
from quant.layers.trainable.input import InputQuantizer
from quant.layers.trainable.soft_rounding import SoftRounding, by_channel
from quant.quantizers.weight import QuantizedWeight, minmax_scale
from quant.tensor.affine import signed_top

HELD = 0.25
"""Distance from its code, in steps, of a weight whose rounding was chosen."""


class FakeQuantizedLayer(nn.Module):
    """A linear or convolution layer with a float32 weight [N, ...], which is the master that training moves, the steps
    of its output channels `weight_scale` float32 [N], and the quantizer of its input.

    `soft` holds rounding variables while they are optimized."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, weight_bits: int, inputs: InputQuantizer) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach().float().clone(), requires_grad=False)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().float().clone(), False)
        self.weight_scale = nn.Parameter(minmax_scale(self.weight, weight_bits), requires_grad=False)
        self.inputs = inputs
        self.soft: SoftRounding | None = None
        self.weight_bits = weight_bits
        self.weight_quantized = False
        self.window: dict[str, Any] | None = None
        if isinstance(layer, nn.Conv2d):
            if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
                raise RecipeMismatch(f"padding {layer.padding!r} of mode {layer.padding_mode!r} cannot be quantized")
            self.window = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}

    @property
    def top(self) -> int:
        """The largest weight code."""
        return signed_top(self.weight_bits)

    def forward(self, x: Tensor) -> Tensor:
        """As the layer: [B, ..., K] to [B, ..., N], or pictures [B, C, H, W] to [B, N, H', W']."""
        x, weight = self.inputs(x), self.quantized_weight()
        if self.window is None:
            return functional.linear(x, weight, self.bias)
        return functional.conv2d(x, weight, self.bias, **self.window)

    def quantized_weight(self) -> Tensor:
        """The weight that the layer multiplies by: the values of its codes, or the master while it is not quantized."""
        if not self.weight_quantized:
            return self.weight
        if self.soft is not None:
            return self.soft.codes(self.top) * by_channel(self.weight_scale, self.weight)
        ends = torch.full_like(self.weight_scale, self.top)
        return fake_quantize(self.weight, self.weight_scale, -ends, ends)

    def harden(self) -> None:
        """Ends the optimization of the rounding: masters that rounding to the nearest would send elsewhere move to
        within HELD of their code, far enough from the boundary that training does not undo the choice at once."""
        if self.soft is None:
            return
        scale = by_channel(self.weight_scale, self.weight)
        codes = self.soft.hard_codes(self.top)
        steps = self.weight.detach() / scale
        moved = steps.round().clamp(-self.top, self.top) != codes
        self.weight.data = torch.where(moved, codes + HELD * (steps - codes).sign(), steps) * scale
        self.soft = None

    def export(self) -> QuantizedWeight:
        """The codes and scales that the integer layer takes."""
        ends = torch.full_like(self.weight_scale, self.top)
        scale = self.weight_scale.detach()
        values = fake_quantize(self.weight.detach(), scale, -ends, ends)
        codes = (values / by_channel(scale, values)).round().to(torch.int8)
        return QuantizedWeight(codes.contiguous(), scale.clone())

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, weight_bits={self.weight_bits}"
