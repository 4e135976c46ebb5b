"""Which integer engine a device gets, the test that it must pass first, and the report of what was chosen and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from quant.errors import KernelError
from quant.kernels import native, triton
from quant.kernels.engine import Engine, Operands, Window
from quant.kernels.native.passes import NativePasses
from quant.kernels.onednn import OneDNNEngine
from quant.kernels.passes import TorchPasses
from quant.kernels.reference import ReferenceEngine
from quant.quantizers.activation import ActivationParameters, ActivationTable


@dataclass(frozen=True)
class Selection:
    """The engine of a device, and one sentence per choice that was made."""

    engine: Engine
    reasons: tuple[str, ...]


def self_test(engine: Engine, device: torch.device | None = None) -> None:
    """Compares an engine with the reference arithmetic on small layers. Raises KernelError when they disagree."""
    generator = torch.Generator().manual_seed(0)
    inputs = ActivationTable((ActivationParameters(0.02, 117), ActivationParameters(0.03, 90)))

    def draw(*shape: int, low: int = -127, high: int = 128) -> torch.Tensor:
        return torch.randint(low, high, shape, generator=generator).to(device=device)

    scale, bias = draw(24, low=1, high=9).float() / 8, draw(24).float() / 64
    linear = Operands(draw(24, 40).to(torch.int8), scale, bias, inputs)
    conv = Operands(draw(24, 8, 3, 3).to(torch.int8), scale, bias, inputs)
    window = Window(padding=(1, 1))
    flat, image = draw(5, 40, low=0, high=256).to(torch.uint8), draw(2, 8, 8, 9, low=0, high=256).to(torch.uint8)
    exact = ReferenceEngine()
    # Large enough for the tiles that a GPU uses in earnest.
    wide = Operands(draw(512, 256).to(torch.int8), scale.repeat(22)[:512], None, inputs)
    layers = (
        (engine.linear(wide), exact.linear(wide), draw(1024, 256, low=0, high=256).to(torch.uint8)),
        (engine.linear(linear), exact.linear(linear), flat),
        (engine.conv2d(conv, window), exact.conv2d(conv, window), image),
    )
    for kernel, truth, codes in layers:
        for group in range(len(inputs.rows)):
            wanted = truth(codes, group, torch.float32)
            worst = ((kernel(codes, group, torch.float32) - wanted).abs().max() / wanted.abs().max()).item()
            if not worst < 1e-5:
                raise KernelError(f"engine {engine.name} differs from exact arithmetic by {worst:.2e} of the range")


@cache
def select(device_type: str = "cpu") -> Selection:
    """The fastest engine of a device type that passes the self-test; exact emulation when none does."""
    reasons: list[str] = []
    for make in _CANDIDATES.get(device_type, ()):
        try:
            engine = make(reasons)
            self_test(engine, torch.device(device_type))
        except Exception as error:  # compilers and drivers raise kinds of their own
            reasons.append(f"{make.__name__.strip('_')}: not used: {error}")
            continue
        reasons.append(f"products: {engine.name}, self-test passed")
        return Selection(engine, tuple(reasons))
    reasons.append("products: reference, exact emulation, slow")
    return Selection(ReferenceEngine(), tuple(reasons))


def default_engine(device_type: str = "cpu") -> Engine:
    """The engine of `select`."""
    return select(device_type).engine


def _onednn(reasons: list[str]) -> Engine:
    if not native.available():
        reasons.append(f"passes: plain torch, no native kernels: {native.status()}")
        return OneDNNEngine(TorchPasses())
    tiles = "AMX tiles" if native.has_tiles() else "no AMX tiles, so attention is torch's"
    reasons.append(f"passes: native, {tiles}")
    return OneDNNEngine(NativePasses())


def _triton(reasons: list[str]) -> Engine:
    reason = triton.missing()
    if reason is not None:
        raise KernelError(reason)
    from quant.kernels.triton.engine import TritonEngine  # Triton itself takes a second to import

    reasons.append("passes: triton, attention is torch's")
    return TritonEngine()


_CANDIDATES: dict[str, tuple[Callable[[list[str]], Engine], ...]] = {"cpu": (_onednn,), "cuda": (_triton,)}
