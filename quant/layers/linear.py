"""A linear layer on integer codes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quant.engine.engine import Engine, LinearKernel, Operands
from quant.layers.layer import QuantizedLayer


class QuantizedLinear(QuantizedLayer[LinearKernel]):
    """`torch.nn.Linear` with integer weights [N, K] and uint8 inputs [..., K], or int8 ones with a scale per token."""

    def __init__(self, in_features: int, out_features: int, weight_bits: int, has_bias: bool, groups: int = 1) -> None:
        super().__init__((out_features, in_features), weight_bits, has_bias, groups)
        self.in_features = in_features
        self.out_features = out_features

    @classmethod
    def like(cls, layer: nn.Linear, weight_bits: int, groups: int = 1) -> QuantizedLinear:
        """An empty quantized layer of the same sizes."""
        return cls(layer.in_features, layer.out_features, weight_bits, layer.bias is not None, groups)

    def _build(self, engine: Engine, operands: Operands) -> LinearKernel:
        return engine.linear(operands, self.packed and self.weight_bits <= 4)

    def quantize(self, x: Tensor) -> Tensor:
        """See `QuantizedLayer.quantize`."""
        return self.chosen_engine.passes.quantize(x, self.activation)

    def _dynamic(self, x: Tensor) -> Tensor:
        codes, scale = self.chosen_engine.passes.quantize_per_token(x)
        return self.kernel.per_token(codes, scale, x.dtype)

    def input_gradient(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        """See `QuantizedLayer.input_gradient`."""
        return (gradient @ self.quantized_weight.dequantize()).view(shape)

    def dequantized(self) -> nn.Linear:
        """See `QuantizedLayer.dequantized`."""
        layer = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        layer.weight = nn.Parameter(self.quantized_weight.dequantize(), requires_grad=False)
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias.clone(), requires_grad=False)
        return layer
