"""int8 products on the tensor cores of NVIDIA GPUs."""

from __future__ import annotations

import torch
from torch import Tensor

from quant.engine.engine import Operands, Passes, Window
from quant.engine.triton.passes import TritonPasses
from quant.engine.triton.product import Factors, Geometry, multiply
from quant.engine.triton.weight import store


class TritonEngine:
    """Ampere or newer. Sums are int32 and corrected for the zero point as integers; one multiplication per output
    channel brings them to floats. Nothing waits for the GPU and nothing is tuned by trial: a kernel is compiled at its
    first call and kept on disk by Triton.

    With TRITON_INTERPRET=1 set before Triton is imported, the same kernels run on a CPU, very slowly."""

    name = "triton"

    def __init__(self) -> None:
        self.passes: Passes = TritonPasses()

    def linear(self, operands: Operands, packed: bool = False) -> _Linear:
        """See `Engine.linear`."""
        return _Linear(operands, packed)

    def conv2d(self, operands: Operands, window: Window, packed: bool = False) -> _Convolution:
        """See `Engine.conv2d`."""
        return _Convolution(operands, window, packed)


class _Layer:
    """A weight [N, taps, columns, C] and what its sums are scaled by."""

    def __init__(self, operands: Operands, codes: Tensor, packed: bool) -> None:
        self._weight = store(codes, packed)
        self._sums = codes.flatten(1).sum(dim=1, dtype=torch.int32)
        self._scale = operands.weight_scale.float().contiguous()
        self._bias = None if operands.bias is None else operands.bias.float().contiguous()
        self._inputs = operands.inputs

    def resident_bytes(self) -> int:
        return self._weight.resident_bytes()

    def _factors(self, group: int) -> Factors:
        inputs = self._inputs.at(group)
        return Factors(self._scale, self._sums, self._bias, inputs.scale, inputs.zero_point)


class _Linear(_Layer):
    def __init__(self, operands: Operands, packed: bool) -> None:
        super().__init__(operands, operands.codes[:, None, None, :], packed)

    def __call__(self, codes: Tensor, group: int, dtype: torch.dtype, residual: Tensor | None = None) -> Tensor:
        return self._product(codes, self._factors(group), dtype, residual)

    def per_token(self, codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        factors = Factors(self._scale, self._sums, self._bias, per_row=scale.contiguous())
        return self._product(codes, factors, dtype, None)

    def codes(self) -> Tensor:
        return self._weight.tensor().flatten(1)

    def _product(self, codes: Tensor, factors: Factors, dtype: torch.dtype, residual: Tensor | None) -> Tensor:
        weight, codes = self._weight.tensor(), codes.contiguous()
        out = torch.empty((*codes.shape[:-1], len(weight)), dtype=dtype, device=codes.device)
        rows = codes.shape[:-1].numel()
        residual = None if residual is None else residual.contiguous()
        multiply(codes, weight, factors, Geometry(rows, rows, pixel=codes.shape[-1]), out, residual)
        return out


class _Convolution(_Layer):
    def __init__(self, operands: Operands, window: Window, packed: bool) -> None:
        super().__init__(operands, operands.codes.permute(0, 2, 3, 1).contiguous(), packed)
        self._window = window

    def __call__(self, codes: Tensor, group: int, dtype: torch.dtype, residual: Tensor | None = None) -> Tensor:
        weight, codes = self._weight.tensor(), codes.contiguous(memory_format=torch.channels_last)
        window = self._window
        (batch, channels, lines, columns), (vertical, horizontal) = codes.shape, window.dilation
        height = (lines - (weight.shape[1] - 1) * vertical - 1) // window.stride[0] + 1
        width = (columns - (weight.shape[2] - 1) * horizontal - 1) // window.stride[1] + 1
        geometry = Geometry(
            pixels=height * width,
            width=width,
            picture=lines * columns * channels,
            line=columns * channels * window.stride[0],
            pixel=channels * window.stride[1],
            tap_line=columns * channels * vertical,
            tap_column=channels * horizontal,
            groups=window.groups,
        )
        out = torch.empty(
            (batch, len(weight), height, width), dtype=dtype, device=codes.device, memory_format=torch.channels_last
        )
        residual = None if residual is None else residual.contiguous(memory_format=torch.channels_last)
        multiply(codes, weight, self._factors(group), geometry, out, residual)
        return out

    def codes(self) -> Tensor:
        return self._weight.tensor().permute(0, 3, 1, 2).contiguous()
