"""Exact integer arithmetic in plain torch, slow: the truth that other engines are tested against."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, linear, pad

from quant.kernels.engine import Kernel, Operands, Window


class ReferenceEngine:
    """Multiplies and sums the integers in float64, which is exact below 2^53, then scales once."""

    name = "reference"

    def linear(self, operands: Operands) -> Kernel:
        """See `Engine.linear`."""
        codes = operands.codes.double()

        def kernel(x: Tensor) -> Tensor:
            sums = linear(x.double() - operands.activation.zero_point, codes)
            return _scaled(sums, operands, (-1,))

        return kernel

    def conv2d(self, operands: Operands, window: Window) -> Kernel:
        """See `Engine.conv2d`."""
        codes = operands.codes.double()
        vertical, horizontal = window.padding

        def kernel(x: Tensor) -> Tensor:
            centred = pad(x.double() - operands.activation.zero_point, (horizontal, horizontal, vertical, vertical))
            sums = conv2d(centred, codes, None, window.stride, 0, window.dilation, window.groups)
            return _scaled(sums, operands, (1, -1, 1, 1))

        return kernel


def _scaled(sums: Tensor, operands: Operands, shape: tuple[int, ...]) -> Tensor:
    scale = operands.weight_scale.double() * operands.activation.scale
    out = sums * scale.view(shape)
    if operands.bias is not None:
        out = out + operands.bias.double().view(shape)
    return out.to(operands.dtype if operands.dtype.is_floating_point else torch.float32)
