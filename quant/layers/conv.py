"""A two-dimensional convolution on integer codes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from quant.engine.engine import Engine, Kernel, Operands, Window
from quant.errors import RecipeMismatch
from quant.layers.layer import QuantizedLayer


class QuantizedConv2d(QuantizedLayer[Kernel]):
    """`torch.nn.Conv2d` with zero padding, integer weights [N, C / groups, kH, kW] and uint8 inputs [B, C, H, W]."""

    def __init__(
        self, shape: tuple[int, ...], window: Window, weight_bits: int, has_bias: bool, groups: int = 1
    ) -> None:
        super().__init__(shape, weight_bits, has_bias, groups)
        self.window = window

    @classmethod
    def like(cls, layer: nn.Conv2d, weight_bits: int, groups: int = 1) -> QuantizedConv2d:
        """An empty quantized layer of the same sizes. Raises RecipeMismatch for padding other than with zeros."""
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            raise RecipeMismatch(f"padding {layer.padding!r} of mode {layer.padding_mode!r} cannot be quantized")
        window = Window(layer.stride, layer.padding, layer.dilation, layer.groups)  # type: ignore[arg-type]
        return cls(tuple(layer.weight.shape), window, weight_bits, layer.bias is not None, groups)

    def _build(self, engine: Engine, operands: Operands) -> Kernel:
        return engine.conv2d(operands, self.window, self.packed and self.weight_bits <= 4)

    def quantize(self, x: Tensor) -> Tensor:
        """See `QuantizedLayer.quantize`; framed with the padding."""
        return self.chosen_engine.passes.quantize_image(x, self.activation, self.window.padding)

    def _dynamic(self, x: Tensor) -> Tensor:
        raise RecipeMismatch("a convolution takes a calibrated scale: its kernels know no scale per token")

    def input_gradient(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        """See `QuantizedLayer.input_gradient`."""
        weight, window = self.quantized_weight.dequantize(), self.window
        return conv2d_input(shape, weight, gradient, window.stride, window.padding, window.dilation, window.groups)

    def dequantized(self) -> nn.Conv2d:
        """See `QuantizedLayer.dequantized`."""
        window = self.window
        layer = nn.Conv2d(
            self.shape[1] * window.groups, self.shape[0], (self.shape[2], self.shape[3]), window.stride, window.padding,
            window.dilation, window.groups, bias=self.bias is not None, device="meta",
        )  # fmt: skip
        layer.weight = nn.Parameter(self.quantized_weight.dequantize(), requires_grad=False)
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias.clone(), requires_grad=False)
        return layer
