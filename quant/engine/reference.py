"""Exact integer arithmetic in plain torch, slow: the truth that other engines are tested against."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from quant.engine.engine import Operands, Passes, Window
from quant.engine.passes import TorchPasses
from quant.tensor.packing import pack_int4, unpack_int4


class ReferenceEngine:
    """Multiplies and sums the integers in float64, which is exact below 2^53, then scales once."""

    name = "reference"

    def __init__(self) -> None:
        self.passes: Passes = TorchPasses()

    def linear(self, operands: Operands, packed: bool = False) -> _Linear:
        """See `Engine.linear`."""
        return _Linear(operands, packed)

    def conv2d(self, operands: Operands, window: Window, packed: bool = False) -> _Convolution:
        """See `Engine.conv2d`."""
        return _Convolution(operands, window, packed)


class _Weight:
    """The codes of a layer, packed or not, and its scales."""

    def __init__(self, operands: Operands, packed: bool) -> None:
        self._inputs, self._bias, self._scale = operands.inputs, operands.bias, operands.weight_scale
        self._shape = operands.codes.shape
        self._stored = pack_int4(operands.codes) if packed else operands.codes
        self._packed = packed

    def codes(self) -> Tensor:
        return unpack_int4(self._stored, self._shape) if self._packed else self._stored

    def resident_bytes(self) -> int:
        return self._stored.numel() * self._stored.element_size()

    def _finish(self, sums: Tensor, scale: float | Tensor, columns: tuple[int, ...]) -> Tensor:
        out = sums * (self._scale.double().view(columns) * scale)
        return out if self._bias is None else out + self._bias.double().view(columns)


class _Linear(_Weight):
    def __call__(self, codes: Tensor, group: int, dtype: torch.dtype, residual: Tensor | None = None) -> Tensor:
        inputs = self._inputs.at(group)
        sums = functional.linear(codes.double() - inputs.zero_point, self.codes().double())
        return _round(self._finish(sums, inputs.scale, (-1,)), dtype, residual)

    def per_token(self, codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        sums = functional.linear(codes.double(), self.codes().double())
        return self._finish(sums, scale.double()[..., None], (-1,)).to(dtype)


class _Convolution(_Weight):
    def __init__(self, operands: Operands, window: Window, packed: bool) -> None:
        super().__init__(operands, packed)
        self._window = window

    def __call__(self, codes: Tensor, group: int, dtype: torch.dtype, residual: Tensor | None = None) -> Tensor:
        inputs, window = self._inputs.at(group), self._window
        centred = codes.double() - inputs.zero_point
        weight = self.codes().double()
        sums = functional.conv2d(centred, weight, None, window.stride, 0, window.dilation, window.groups)
        out = _round(self._finish(sums, inputs.scale, (1, -1, 1, 1)), dtype, residual)
        return out.contiguous(memory_format=torch.channels_last)


def _round(out: Tensor, dtype: torch.dtype, residual: Tensor | None) -> Tensor:
    return out.to(dtype) if residual is None else (out + residual.double()).to(dtype)
