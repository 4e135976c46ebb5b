"""What an integer engine is, and which one this machine gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from quant.errors import KernelError
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


def self_test(engine: Engine) -> None:
    """Compares an engine with the reference arithmetic on small layers. Raises KernelError when they disagree."""
    from quant.kernels.reference import ReferenceEngine

    generator = torch.Generator().manual_seed(0)
    activation = ActivationParameters(scale=0.02, zero_point=117)

    def draw(*shape: int, low: int = -127, high: int = 128) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    scale, bias = torch.rand(24, generator=generator) + 0.1, torch.randn(24, generator=generator)
    linear = Operands(draw(24, 40).to(torch.int8), scale, bias, activation)
    conv = Operands(draw(24, 8, 3, 3).to(torch.int8), scale, bias, activation)
    window = Window(padding=(1, 1))
    flat, image = draw(5, 40, low=0, high=256).to(torch.uint8), draw(2, 8, 6, 7, low=0, high=256).to(torch.uint8)
    exact = ReferenceEngine()
    pairs = [
        (engine.linear(linear)(flat), exact.linear(linear)(flat)),
        (engine.conv2d(conv, window)(image), exact.conv2d(conv, window)(image)),
    ]
    for got, wanted in pairs:
        worst = ((got - wanted).abs().max() / wanted.abs().max()).item()
        if not worst < 1e-5:
            raise KernelError(f"engine {engine.name} differs from exact integer arithmetic by {worst:.2e} of the range")


@cache
def default_engine() -> Engine:
    """oneDNN when this build of torch has it and it passes the self-test; exact emulation otherwise."""
    from quant.kernels.onednn import OneDNNEngine
    from quant.kernels.reference import ReferenceEngine

    engine = OneDNNEngine()
    try:
        self_test(engine)
    except (KernelError, RuntimeError, AttributeError):
        return ReferenceEngine()
    return engine
