"""What quantized linear and convolution layers share: their tensors, and a kernel made of them at the first call."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from quant.errors import CheckpointError
from quant.kernels.engine import Engine, Kernel, Operands
from quant.kernels.selection import default_engine
from quant.quantizers.activation import ActivationParameters
from quant.quantizers.weight import QuantizedWeight
from quant.tensor.packing import pack_int4, unpack_int4


class QuantizedLayer(nn.Module, ABC):
    """A layer whose weight is integer codes and whose input is quantized to uint8 with a calibrated scale.

    Buffers, which are also the checkpoint's tensors: `weight` (int8 [N, ...], or uint8 [N, ceil(K / 2)] holding two
    4-bit codes per byte), `weight_scale` float32 [N], `input_scale` float32 [T], `input_zero_point` int32 [T] with T
    groups of timesteps (1: the same at every step), and `bias` float32 [N] or None."""

    weight: Tensor
    weight_scale: Tensor
    input_scale: Tensor
    input_zero_point: Tensor
    bias: Tensor | None

    def __init__(self, shape: tuple[int, ...], weight_bits: int, has_bias: bool) -> None:
        super().__init__()
        self.shape = shape
        self.weight_bits = weight_bits
        packed = (shape[0], (int(torch.Size(shape[1:]).numel()) + 1) // 2)
        weight = torch.zeros(shape, dtype=torch.int8) if weight_bits == 8 else torch.zeros(packed, dtype=torch.uint8)
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", torch.ones(shape[0]))
        self.register_buffer("input_scale", torch.ones(1))
        self.register_buffer("input_zero_point", torch.zeros(1, dtype=torch.int32))
        self.register_buffer("bias", torch.zeros(shape[0]) if has_bias else None)
        self.engine: Engine | None = None
        self._kernels: dict[torch.dtype, Kernel] = {}

    def assign(self, weight: QuantizedWeight, activation: ActivationParameters, bias: Tensor | None) -> None:
        """Takes over codes, scales, the input's quantization and the bias."""
        self.weight = weight.codes if self.weight_bits == 8 else pack_int4(weight.codes)
        self.weight_scale = weight.scale
        self.input_scale = torch.tensor([activation.scale])
        self.input_zero_point = torch.tensor([activation.zero_point], dtype=torch.int32)
        self.bias = None if bias is None else bias.detach().float()
        self._kernels.clear()

    @property
    def quantized_weight(self) -> QuantizedWeight:
        """The weight's codes, unpacked, and scales."""
        codes = self.weight if self.weight_bits == 8 else unpack_int4(self.weight, self.shape)
        return QuantizedWeight(codes, self.weight_scale)

    @property
    def activation(self) -> ActivationParameters:
        """How the input is quantized. Raises CheckpointError where the stored values make no sense."""
        scale, zero_point = float(self.input_scale[0]), int(self.input_zero_point[0])
        if not 0.0 < scale < float("inf") or not 0 <= zero_point <= 255:
            raise CheckpointError(f"input_scale {scale} must be positive, input_zero_point {zero_point} in 0..255")
        return ActivationParameters(scale, zero_point)

    def check(self) -> None:
        """Raises CheckpointError where scales or zero points make no sense."""
        _ = self.activation
        if not bool((self.weight_scale.isfinite() & (self.weight_scale > 0.0)).all()):
            raise CheckpointError("weight_scale must be positive and finite")

    @abstractmethod
    def _build(self, engine: Engine, operands: Operands) -> Kernel: ...

    @abstractmethod
    def dequantized(self) -> nn.Module:
        """The floating-point layer that this one approximates, with the weight that the codes stand for."""

    def forward(self, x: Tensor) -> Tensor:
        """As the floating-point layer: floats in, floats of the same dtype out."""
        kernel = self._kernels.get(x.dtype)
        if kernel is None:
            weight, bias = self.quantized_weight, self.bias
            operands = Operands(weight.codes, weight.scale, bias, self.activation, x.dtype)
            kernel = self._kernels[x.dtype] = self._build(self.engine or default_engine(), operands)
        return kernel(self.activation.quantize(x))

    def extra_repr(self) -> str:
        return f"{tuple(self.shape)}, weight_bits={self.weight_bits}"
