"""A quantized denoiser under grad: gradients as of the same layers in floating point, and none that is wrong."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

from quant.checkpoints.conversion import dequantize
from quant.checkpoints.layout import Layout, empty_like, products, quantized_layers
from quant.engine.engine import Engine
from quant.engine.onednn import OneDNNEngine
from quant.engine.passes import TorchPasses
from quant.engine.reference import ReferenceEngine
from quant.layers.layer import QuantizedLayer
from quant.layers.shortcut import SplitConv2d
from quant.quantizers.activation import ActivationParameters, ActivationTable
from quant.quantizers.weight import quantize_weight
from tests.quant.pipelines.conftest import Make, denoise, distance, inputs
from tests.support.fake_quantized import fake_quantized

LAYERS = {
    "linear": (nn.Linear(24, 10), (2, 5, 24)),
    "linear without bias": (nn.Linear(16, 8, bias=False), (3, 16)),
    "conv": (nn.Conv2d(6, 10, 3, padding=1), (2, 6, 7, 5)),
    "pointwise": (nn.Conv2d(8, 4, 1), (1, 8, 4, 4)),
    "strided, grouped": (nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=2), (2, 8, 9, 9)),
}
TABLE = ActivationTable((ActivationParameters(0.01, 100),))
SATURATING = OneDNNEngine(TorchPasses())
"""Its forward may be wrong on this processor; what is tried is that its backward is not and that it does not crash."""


class Wrapper(nn.Module):
    """What adapters' training does to a layer: the layer, and a small branch beside it."""

    def __init__(self, module: nn.Module, inputs: int, outputs: int) -> None:
        super().__init__()
        self.module = module
        self.adapter = nn.Sequential(nn.Linear(inputs, 4, bias=False), nn.Linear(4, outputs, bias=False))
        nn.init.zeros_(self.adapter[1].weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x) + self.adapter(x)  # type: ignore[no-any-return]


def _quantized(layer: nn.Module, table: ActivationTable | None) -> QuantizedLayer:
    quantized = empty_like(layer, 8, Layout(dynamic_activations=table is None))
    quantized.assign(quantize_weight(layer.weight, 8), table, layer.bias)
    return quantized


def _gradients(unet: nn.Module) -> dict[str, Tensor]:
    """Of the mean square of the output: of both inputs, and of every parameter that has one."""
    x, context = (tensor.requires_grad_() for tensor in inputs())
    unet.zero_grad()
    unet(x, 501, context).sample.square().mean().backward()
    found = {name: p.grad for name, p in unet.named_parameters() if p.grad is not None}
    return found | {"x": x.grad, "context": context.grad}


@pytest.mark.parametrize("engine", [ReferenceEngine(), SATURATING], ids=["reference", "onednn"])
@pytest.mark.parametrize("table", [TABLE, None], ids=["calibrated", "dynamic"])
@pytest.mark.parametrize("kind", LAYERS)
def test_the_gradient_of_a_layer_is_that_of_its_floats(
    kind: str, table: ActivationTable | None, engine: Engine
) -> None:
    layer, shape = LAYERS[kind]
    if table is None and isinstance(layer, nn.Conv2d):
        return
    quantized = _quantized(layer, table)
    quantized.engine = engine
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(shape, dtype=dtype).requires_grad_()
        same = x.detach().clone().requires_grad_()
        out = quantized(x)
        assert out.requires_grad and out.dtype == dtype
        gradient = torch.randn_like(out)
        out.backward(gradient)
        seen = same if table is None else fake_quantized(same, TABLE.rows[0])
        quantized.dequantized()(seen.float()).backward(gradient.float())
        torch.testing.assert_close(x.grad, same.grad, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-4)
        assert table is None or bool((x.grad == 0).any()), "what is clipped has no gradient"


def test_a_second_derivative_is_refused() -> None:
    x = torch.randn(3, 16).requires_grad_()
    out = _quantized(nn.Linear(16, 8), TABLE)(x)
    (first,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_a_split_shortcut_has_the_gradients_of_both_halves() -> None:
    split = SplitConv2d.of(nn.Conv2d(12, 5, 1), 8)
    split.hidden, split.skip = _quantized(split.hidden, TABLE), _quantized(split.skip, TABLE)
    x = torch.randn(2, 12, 3, 3).requires_grad_()
    split(x).sum().backward()
    halves = copy.deepcopy(split)
    halves.hidden, halves.skip = split.hidden.dequantized(), split.skip.dequantized()
    same = x.detach().clone().requires_grad_()
    halves(fake_quantized(same, TABLE.rows[0])).sum().backward()
    torch.testing.assert_close(x.grad, same.grad)


def test_gradients_of_a_denoiser_are_near_those_of_its_floats(variant: StableDiffusionPipeline) -> None:
    unet = variant.unet.requires_grad_(True)
    floats = copy.deepcopy(unet)
    dequantize(floats)
    found, wanted = _gradients(unet), _gradients(floats.requires_grad_(True))
    assert found.keys() <= wanted.keys() and len(found) > 10
    floating = {name for name, p in unet.named_parameters()}
    assert floating <= found.keys(), "a parameter without a gradient"
    for name, gradient in found.items():
        assert bool(gradient.isfinite().all()), name
    coarse = 0.6 if any(layer.weight_bits <= 4 for layer in quantized_layers(unet).values()) else 0.35
    for name in ("x", "context", "conv_in.weight", "conv_out.weight"):
        assert distance(found[name], wanted[name]) < coarse, name


def test_integer_attention_has_a_gradient(make: Make) -> None:
    unet = make("attention").unet
    assert products(unet)
    gradients = _gradients(unet.requires_grad_(True))
    queries = unet.down_blocks[1].attentions[0].transformer_blocks[0].norm1
    assert gradients["x"].norm() > 0 and queries.weight.grad.norm() > 0


def test_nothing_changes_where_no_gradient_is_asked_for(variant: StableDiffusionPipeline) -> None:
    unet = variant.unet
    with torch.no_grad():
        wanted = denoise(unet)
    assert torch.equal(denoise(unet), wanted)
    with torch.inference_mode():
        assert torch.equal(denoise(unet), wanted)
    _gradients(unet.requires_grad_(True))
    with torch.no_grad():
        assert torch.equal(denoise(unet), wanted)
    assert distance(denoise(unet).detach(), wanted) < 0.05


def test_gradients_reach_adapters_around_the_layers(variant: StableDiffusionPipeline) -> None:
    unet = variant.unet
    with torch.no_grad():
        before = denoise(unet)
    adapters = []
    for module in list(unet.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, QuantizedLayer | nn.Linear) and name in ("to_q", "to_v"):
                shape = child.shape if isinstance(child, QuantizedLayer) else child.weight.shape
                wrapped = Wrapper(child, shape[1], shape[0])
                setattr(module, name, wrapped)
                adapters.append(wrapped.adapter)
    assert len(adapters) >= 8
    denoise(unet).square().sum().backward()
    for adapter in adapters:
        assert adapter[1].weight.grad.norm() > 0
    with torch.no_grad():
        assert distance(denoise(unet), before) < 0.05
        for adapter in adapters:
            nn.init.normal_(adapter[1].weight)
        assert distance(denoise(unet), before) > 0.05, "the adapters act"


@pytest.mark.parametrize("name", ["w8a8", "tables"])
def test_a_training_step_changes_what_is_trained(make: Make, name: str) -> None:
    unet = make(name).unet.requires_grad_(True).train()
    optimizer = torch.optim.SGD(unet.parameters(), lr=1e-2)
    before = {key: tensor.clone() for key, tensor in unet.state_dict().items()}
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = denoise(unet).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    changed = {key for key, tensor in unet.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed == {key for key, _ in unet.named_parameters()}


def test_checkpointed_gradients_are_the_same(make: Make) -> None:
    unet = make().unet.requires_grad_(True)
    wanted = _gradients(unet)
    unet.enable_gradient_checkpointing()
    unet.train()
    for name, gradient in _gradients(unet).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=1e-6)


def test_conditioning_of_a_request_has_a_gradient_each_time(make: Make) -> None:
    unet = make("request").unet.requires_grad_(True)
    first = _gradients(unet)
    second = _gradients(unet)
    projections = [name for name in first if "time_emb_proj" in name or "time_embedding" in name]
    assert projections
    for name in projections:
        assert first[name].norm() > 0
        torch.testing.assert_close(first[name], second[name])
    copy.deepcopy(unet)
