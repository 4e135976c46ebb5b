"""Quantized layers: what is served equals fake quantization, whatever the engine."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from quant.errors import RecipeMismatch
from quant.kernels.onednn import OneDNNEngine
from quant.kernels.reference import ReferenceEngine
from quant.layers import empty_like, plan_layers, quantized_layers, replace_layer
from quant.quantizers.activation import ActivationParameters
from quant.quantizers.weight import quantize_weight

LAYERS = {
    "linear": (lambda: nn.Linear(30, 17), (2, 5, 30)),
    "linear without bias": (lambda: nn.Linear(64, 32, bias=False), (3, 64)),
    "conv 3x3": (lambda: nn.Conv2d(6, 10, 3, padding=1), (2, 6, 7, 5)),
    "conv 1x1": (lambda: nn.Conv2d(16, 8, 1), (1, 16, 1, 1)),
    "conv strided, grouped": (lambda: nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=2), (2, 8, 9, 9)),
}


@pytest.mark.parametrize("engine", [OneDNNEngine(), ReferenceEngine()], ids=lambda e: e.name)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("kind", LAYERS)
def test_integer_layer_equals_fake_quantization(kind: str, bits: int, engine: OneDNNEngine | ReferenceEngine) -> None:
    torch.manual_seed(1)
    make, shape = LAYERS[kind]
    layer, x = make(), torch.randn(shape)
    activation = ActivationParameters.from_range(x.min().item(), x.max().item() * 0.8)
    quantized = empty_like(layer, bits)
    quantized.engine = engine
    weight = quantize_weight(layer.weight, bits)
    quantized.assign(weight, activation, layer.bias)
    with torch.no_grad():
        layer.weight.copy_(weight.dequantize())
        wanted = layer.double()(activation.fake_quantize(x).double())
    assert quantized(x).dtype == torch.float32
    torch.testing.assert_close(quantized(x).double(), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(quantized.dequantized().double()(activation.fake_quantize(x).double()), wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_output_has_the_inputs_dtype(dtype: torch.dtype) -> None:
    layer = nn.Linear(8, 4)
    quantized = empty_like(layer, 8)
    quantized.assign(quantize_weight(layer.weight, 8), ActivationParameters(0.02, 128), layer.bias)
    assert quantized(torch.randn(3, 8, dtype=dtype)).dtype == dtype


def test_replacing_keeps_names() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Conv2d(1, 1, 1)))
    for name, bits in plan_layers(model, 8).bits.items():
        replace_layer(model, name, empty_like(model.get_submodule(name), bits))
    assert list(quantized_layers(model)) == ["0", "1.0"]


def test_a_plan_follows_patterns() -> None:
    model = nn.ModuleDict({"first": nn.Linear(2, 2), "last": nn.Linear(2, 2), "middle": nn.Linear(2, 2)})
    plan = plan_layers(model, 4, keep_float=["first"], eight_bit=["la*"])
    assert plan.bits == {"last": 8, "middle": 4} and plan.float_layers == ("first",)
    with pytest.raises(RecipeMismatch, match="nowhere"):
        plan_layers(model, 4, keep_float=["nowhere.*"])
    with pytest.raises(RecipeMismatch, match="no layer"):
        plan_layers(model, 4, keep_float=["*"])


def test_other_padding_is_refused() -> None:
    with pytest.raises(RecipeMismatch, match="reflect"):
        empty_like(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), 8)
