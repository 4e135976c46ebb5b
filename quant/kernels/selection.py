"""Which integer engine this machine gets, and the test that it must pass first."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from quant.errors import KernelError
from quant.kernels.engine import Engine, Operands, Window
from quant.kernels.onednn import OneDNNEngine
from quant.kernels.reference import ReferenceEngine
from quant.quantizers.activation import ActivationParameters


def self_test(engine: Engine) -> None:
    """Compares an engine with the reference arithmetic on small layers. Raises KernelError when they disagree."""
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
    engine = OneDNNEngine()
    try:
        self_test(engine)
    except (KernelError, RuntimeError, AttributeError):
        return ReferenceEngine()
    return engine
