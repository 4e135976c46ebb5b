"""The reference in bfloat16: its convolutions where the processor has none of that kind."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from quant.checkpoints.pipelines import load_reference
from quant.fidelity import bfloat16
from quant.fidelity.bfloat16 import bfloat16_copy
from tests.support.tiny_world import TinyWorld

ULP = 2.0**-7


@pytest.fixture(params=[True, False], ids=["as it is", "without bfloat16 convolutions"])
def unet(request: pytest.FixtureRequest, tiny: TinyWorld, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    if not request.param:
        monkeypatch.setattr(bfloat16, "has_convolutions", lambda: False)
    return bfloat16_copy(load_reference(tiny.description)).unet  # type: ignore[no-any-return]


def test_convolutions_are_the_exact_ones_rounded(unet: nn.Module) -> None:
    torch.manual_seed(0)
    for layer in [module for module in unet.modules() if isinstance(module, nn.Conv2d)]:
        x = torch.randn(2, layer.in_channels, 9, 7).bfloat16()
        got, wanted = layer(x), copy.deepcopy(layer).double()(x.double())
        assert got.dtype == torch.bfloat16
        assert ((got.double() - wanted).abs() <= ULP * wanted.abs() + 1e-4).all()
        assert (got == wanted.bfloat16()).double().mean() > 0.98


def test_the_copy_leaves_the_reference_as_it_is(tiny: TinyWorld, unet: nn.Module) -> None:
    assert {tensor.dtype for tensor in unet.parameters()} == {torch.bfloat16}
    reference = load_reference(tiny.description)
    noisy = bfloat16_copy(reference)
    assert {type(module) for module in reference.unet.modules() if isinstance(module, nn.Conv2d)} == {nn.Conv2d}
    x, context = torch.randn(1, 4, 8, 8), torch.randn(1, 16, 32)
    with torch.no_grad():
        wanted, got = (model(x, 500, context, return_dict=False)[0] for model in (reference.unet, noisy.unet))
    assert got.dtype == wanted.dtype == torch.float32
    assert 0.0 < ((got - wanted).norm() / wanted.norm()).item() < 0.05
