"""A convolution whose input is two things put together, each half quantized with its own range."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quant.errors import RecipeMismatch
from quant.layers.capture import uncompiled
from quant.layers.conv import QuantizedConv2d
from quant.layers.layer import is_hooked
from quant.layers.straight_through import needs_gradient


class SplitConv2d(nn.Module):
    """A convolution of concatenated channels as the sum of two: `hidden` takes the first `channels`, `skip` the others.

    The skip connections of a UNet carry another distribution than the hidden state that they are put beside; one scale
    for both loses the narrower one (Q-Diffusion, arXiv 2302.04304, section 3.3: split shortcut quantization)."""

    def __init__(self, hidden: nn.Module, skip: nn.Module, channels: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.skip = skip
        self.channels = channels

    @classmethod
    def of(cls, layer: nn.Conv2d, channels: int) -> SplitConv2d:
        """A convolution as its halves, which share its weight; the bias goes with the first.

        Raises RecipeMismatch for grouped convolutions and for a split outside of the channels."""
        if layer.groups != 1 or not 0 < channels < layer.in_channels:
            raise RecipeMismatch(f"{layer} cannot be split after {channels} channels")
        first = _part(layer, layer.weight[:, :channels], layer.bias)
        return cls(first, _part(layer, layer.weight[:, channels:], None), channels)

    @uncompiled
    def forward(self, x: Tensor) -> Tensor:
        """As the whole convolution: [B, C, H, W] to [B, N, H', W']."""
        out: Tensor = self.hidden(x[:, : self.channels])
        second = x[:, self.channels :]
        skip: Any = self.skip
        hooked = not isinstance(skip, QuantizedConv2d) or is_hooked(skip)
        if hooked or not skip.takes_codes or needs_gradient(x, out):
            return out + skip(second)  # type: ignore[no-any-return]
        return skip.multiply(skip.quantize(second), x.dtype, residual=out)  # type: ignore[no-any-return]

    def joined(self) -> nn.Conv2d:
        """The whole convolution. Raises TypeError while a half is quantized."""
        if not isinstance(self.hidden, nn.Conv2d) or not isinstance(self.skip, nn.Conv2d):
            raise TypeError("only halves in floating point can be joined")
        weight = torch.cat([self.hidden.weight, self.skip.weight], dim=1)
        return _part(self.hidden, weight, self.hidden.bias)


def _part(layer: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """A convolution like `layer` with other input channels."""
    part = nn.Conv2d(
        weight.shape[1], layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation,  # type: ignore[arg-type]
        bias=bias is not None, device="meta",
    )  # fmt: skip
    part.weight = nn.Parameter(weight, requires_grad=False)
    part.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return part
