"""int8 kernels of oneDNN, through the operators that torch registers for its own compiler."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from quant.kernels.engine import Kernel, Operands, Window


class OneDNNEngine:
    """AMX, AVX512-VNNI or AVX2, whichever the processor has.

    Two facts shape this file. A convolution called with a zero point other than 0 re-packs its weight at every call:
    so the codes are padded with the zero point here, the kernel is told that it is 0, and what that leaves in the sums,
    zero_point * sum(codes), is taken out of the bias, which is exact. And weight zero points are ignored by the linear
    operator: weights are symmetric."""

    name = "onednn"

    def linear(self, operands: Operands) -> Kernel:
        """See `Engine.linear`."""
        packed = torch.ops.onednn.qlinear_prepack(operands.codes.contiguous(), None)
        activation, no_offsets = operands.activation, torch.zeros(len(operands.codes), dtype=torch.int32)
        scale, bias = operands.weight_scale.contiguous(), operands.bias

        def kernel(x: Tensor) -> Tensor:
            out: Tensor = torch.ops.onednn.qlinear_pointwise(
                x, activation.scale, activation.zero_point, packed, scale, no_offsets, bias, 1.0, 0, operands.dtype,
                "none", [], "",
            )  # fmt: skip
            return out

        return kernel

    def conv2d(self, operands: Operands, window: Window) -> Kernel:
        """See `Engine.conv2d`."""
        activation, scale = operands.activation, operands.weight_scale.contiguous()
        no_offsets = torch.zeros(len(operands.codes), dtype=torch.int32)
        sums = operands.codes.to(torch.int64).flatten(1).sum(dim=1).double()
        offset = (sums * operands.weight_scale.double() * (activation.scale * activation.zero_point)).float()
        bias = -offset if operands.bias is None else operands.bias.float() - offset
        stride, dilation = list(window.stride), list(window.dilation)
        vertical, horizontal = window.padding
        margins = (horizontal, horizontal, vertical, vertical)
        packed: dict[tuple[int, ...], Tensor] = {}

        def kernel(x: Tensor) -> Tensor:
            if any(margins):
                x = pad(x, margins, value=activation.zero_point)
            x = x.contiguous(memory_format=torch.channels_last)
            shape = tuple(x.shape)
            if shape not in packed:
                packed.clear()  # the layout suits one input size: keep only the latest
                packed[shape] = torch.ops.onednn.qconv_prepack(
                    operands.codes, scale, activation.scale, 0, stride, [0, 0], dilation, window.groups, list(shape)
                )
            out: Tensor = torch.ops.onednn.qconv_pointwise(
                x, activation.scale, 0, packed[shape], scale, no_offsets, bias, stride, [0, 0], dilation,
                window.groups, 1.0, 0, operands.dtype, "none", [], "",
            )  # fmt: skip
            return out

        return kernel
