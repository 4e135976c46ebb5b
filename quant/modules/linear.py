"""A linear layer on integer codes."""

from __future__ import annotations

import torch
from torch import nn

from quant.kernels.engine import Engine, Kernel, Operands
from quant.modules.layer import QuantizedLayer


class QuantizedLinear(QuantizedLayer):
    """`torch.nn.Linear` with int8 or 4-bit weights [N, K] and uint8 inputs [..., K]."""

    def __init__(self, in_features: int, out_features: int, weight_bits: int, has_bias: bool) -> None:
        super().__init__((out_features, in_features), weight_bits, has_bias)
        self.in_features = in_features
        self.out_features = out_features

    @classmethod
    def like(cls, layer: nn.Linear, weight_bits: int) -> QuantizedLinear:
        """An empty quantized layer of the same sizes."""
        return cls(layer.in_features, layer.out_features, weight_bits, layer.bias is not None)

    def _build(self, engine: Engine, operands: Operands) -> Kernel:
        return engine.linear(operands)

    def dequantized(self) -> nn.Linear:
        """See `QuantizedLayer.dequantized`."""
        layer = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        layer.weight = nn.Parameter(self.quantized_weight.dequantize())
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias.clone())
        return layer.to(torch.float32)
