"""What an engine must get right on this machine before it is used: every product, in every dtype that is offered."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quant.engine.engine import Engine, Kernel, Operands, Passes, Window
from quant.engine.passes import TorchPasses
from quant.engine.reference import ReferenceEngine
from quant.errors import KernelError
from quant.quantizers.activation import ActivationParameters, ActivationTable

ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}
"""The dtypes that a pipeline can be loaded in, and how far from exact arithmetic a product may be, by its range."""


def self_test(engine: Engine, device: torch.device | None = None) -> None:
    """Compares an engine with the reference arithmetic on small layers, in every dtype, with a residual and without.
    Raises KernelError when they disagree."""
    generator = torch.Generator().manual_seed(0)
    inputs = ActivationTable((ActivationParameters(0.02, 117), ActivationParameters(0.03, 90)))

    def draw(*shape: int, low: int = -127, high: int = 128) -> Tensor:
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
            for dtype in ROUNDING:
                _compare(engine.name, kernel, codes, group, wanted, dtype)
    tokens, steps = draw(7, 40).to(torch.int8), draw(7, low=1, high=9).float() / 512
    for dtype in ROUNDING:
        found = engine.linear(linear).per_token(tokens, steps, dtype)
        _check(engine.name, found, exact.linear(linear).per_token(tokens, steps, torch.float32), dtype)


def check_passes(passes: Passes) -> None:
    """Compares the passes that end in codes with plain torch, in every dtype, on the CPU. Raises KernelError when they
    disagree by more than rounding at a tie, or native attention in bfloat16, explains."""
    generator, plain = torch.Generator().manual_seed(0), TorchPasses()
    to, group, layer = ActivationParameters(0.03, 120), nn.GroupNorm(4, 16), nn.LayerNorm(48)
    for dtype in ROUNDING:
        image, tokens = (torch.randn(s, generator=generator).to(dtype) for s in ((2, 16, 5, 6), (2, 9, 48)))
        query, key, value = torch.randn(3, 2, 9, 4, 16, generator=generator).to(dtype)
        with torch.no_grad():
            found, wanted = (
                (
                    p.quantize(tokens, to), p.quantize_image(image, to, (1, 1)), p.geglu(tokens, to),
                    p.group_norm(image, group, to, silu=True, frame=(1, 1)), p.layer_norm(tokens, layer, to),
                    p.attention(query, key, value, 0.25, to), p.quantize_per_token(tokens)[0],
                ) for p in (passes, plain)
            )  # fmt: skip
        for got, truth in zip(found, wanted, strict=True):
            apart = (got.float() - truth.float()).abs().mean().item()
            if got.shape != truth.shape or not apart < 0.5:
                raise KernelError(f"passes {passes.name} differ from plain torch by {apart:.2f} codes in {dtype}")


def _compare(name: str, kernel: Kernel, codes: Tensor, group: int, wanted: Tensor, dtype: torch.dtype) -> None:
    _check(name, kernel(codes, group, dtype), wanted, dtype)
    residual = wanted.flip(0).to(dtype)
    _check(name, kernel(codes, group, dtype, residual.clone()), wanted + residual.float(), dtype)


def _check(name: str, found: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    worst = ((found.float() - wanted).abs().max() / wanted.abs().max()).item()
    if found.dtype != dtype or not worst < ROUNDING[dtype]:
        kind = str(dtype).removeprefix("torch.")
        raise KernelError(f"engine {name} differs from exact arithmetic by {worst:.2e} of the range in {kind}")
