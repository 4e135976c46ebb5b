"""What an integer engine is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from quant.quantizers.activation import ActivationParameters

Kernel = Callable[[Tensor], Tensor]
"""uint8 activations in, floats out."""


@dataclass(frozen=True)
class Operands:
    """What a layer multiplies by: codes int8 ([N, K] or [N, C / groups, kH, kW]), their scales float32 [N], a bias
    float32 [N] or None, how the activations are coded, and the dtype of the output."""

    codes: Tensor
    weight_scale: Tensor
    bias: Tensor | None
    activation: ActivationParameters
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Window:
    """Where a convolution looks: (height, width) each, and the number of groups. Padding is with zeros."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


class Engine(Protocol):
    """Prepares layers for integer execution. A kernel may keep the operands in a layout of its own."""

    name: str

    def linear(self, operands: Operands) -> Kernel:
        """A kernel from codes [..., K] to floats [..., N]."""
        ...

    def conv2d(self, operands: Operands, window: Window) -> Kernel:
        """A kernel from codes [B, C, H, W] to floats [B, N, H', W']."""
        ...
