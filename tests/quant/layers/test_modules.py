"""Quantized layers: what is served equals fake quantization, whatever the engine, the bits and the timestep."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from quant.checkpoints.layout import Layout, empty_like, prepare, quantized_layers, replace_layer
from quant.engine.engine import Engine
from quant.engine.selection import default_engine
from quant.errors import CheckpointError, RecipeMismatch, TimestepError
from quant.layers.layer import QuantizedLayer
from quant.layers.shortcut import SplitConv2d
from quant.layers.timesteps import TimestepGroups
from quant.quantizers.activation import FLOAT_BITS, ActivationParameters, ActivationTable
from quant.quantizers.weight import quantize_weight
from tests.support.engines import ENGINES
from tests.support.fake_quantized import fake_quantized

LAYERS = {
    "linear": (lambda: nn.Linear(30, 17), (2, 5, 30)),
    "linear without bias": (lambda: nn.Linear(64, 32, bias=False), (3, 64)),
    "conv 3x3": (lambda: nn.Conv2d(6, 10, 3, padding=1), (2, 6, 7, 5)),
    "conv 1x1": (lambda: nn.Conv2d(16, 8, 1), (1, 16, 1, 1)),
    "conv strided, grouped": (lambda: nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=2), (2, 8, 9, 9)),
    "conv of one column": (lambda: nn.Conv2d(6, 7, 3, stride=2, padding=1), (2, 6, 12, 1)),
    "nothing divides": (lambda: nn.Conv2d(7, 5, 3, padding=2, dilation=2), (1, 7, 3, 11)),
}


def _quantized(layer: nn.Module, bits: int, table: ActivationTable | None) -> QuantizedLayer:
    quantized = empty_like(layer, bits, Layout(dynamic_activations=table is None))
    quantized.assign(quantize_weight(layer.weight, bits), table, layer.bias)
    return quantized


@pytest.mark.parametrize("engine", [*ENGINES, pytest.param(default_engine(), id="default")])
@pytest.mark.parametrize("bits", [8, 6, 4, 3])
@pytest.mark.parametrize("kind", LAYERS)
def test_integer_layer_equals_fake_quantization(kind: str, bits: int, engine: Engine) -> None:
    torch.manual_seed(1)
    make, shape = LAYERS[kind]
    layer, x = make(), torch.randn(shape)
    activation = ActivationParameters.from_range(x.min().item(), x.max().item() * 0.8, bits=max(bits, 4))
    quantized = _quantized(layer, bits, ActivationTable((activation,)))
    quantized.engine = engine
    with torch.no_grad():
        layer.weight.copy_(quantized.quantized_weight.dequantize())
        wanted = layer.double()(fake_quantized(x, activation).double())
    assert quantized(x).dtype == torch.float32
    torch.testing.assert_close(quantized(x).double(), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(quantized.dequantized().double()(fake_quantized(x, activation).double()), wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", ["linear", "conv 3x3"])
def test_any_layout_and_dtype_gives_the_same_numbers(kind: str, dtype: torch.dtype) -> None:
    make, shape = LAYERS[kind]
    layer, x = make(), torch.randn(shape).to(dtype)
    quantized = _quantized(layer, 8, ActivationTable((ActivationParameters(0.02, 128),)))
    wanted = quantized(x.float())
    strided = torch.stack([x, x], dim=-1)[..., 0]
    for given in (x, strided, x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x.contiguous()):
        out = quantized(given)
        assert out.dtype == dtype and out.shape == wanted.shape
        torch.testing.assert_close(out.float(), wanted, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kind", ["linear", "conv 3x3"])
def test_empty_batches_pass(kind: str) -> None:
    make, shape = LAYERS[kind]
    quantized = _quantized(make(), 8, ActivationTable((ActivationParameters(0.02, 128),)))
    assert quantized(torch.randn(0, *shape[1:])).shape[0] == 0


@pytest.mark.parametrize("kind", ["linear", "conv 3x3"])
def test_a_table_equals_layers_with_one_scale_each(kind: str) -> None:
    make, shape = LAYERS[kind]
    layer, x = make(), torch.randn(shape)
    rows = tuple(ActivationParameters(0.01 * (i + 1), 5 * i, bits) for i, bits in enumerate((8, 6, 4, 8)))
    whole, groups = _quantized(layer, 8, ActivationTable(rows)), TimestepGroups([900, 600, 300, 0])
    whole.timesteps = groups
    for timestep, row in ((900, rows[0]), (455, rows[1]), (299.5, rows[2]), (3, rows[3])):
        groups.select(timestep)
        assert torch.equal(whole(x), _quantized(layer, 8, ActivationTable((row,)))(x))


def test_a_layer_is_float_at_the_steps_that_say_so() -> None:
    layer, x = nn.Linear(12, 5), torch.randn(3, 12)
    table = ActivationTable((ActivationParameters(0.02, 100), ActivationParameters(0.02, 100, FLOAT_BITS)))
    quantized = _quantized(layer, 8, table)
    quantized.timesteps = TimestepGroups([500, 10])
    quantized.timesteps.select(10)
    assert not quantized.takes_codes
    torch.testing.assert_close(quantized(x), quantized.dequantized()(x))
    quantized.timesteps.select(500)
    assert not torch.equal(quantized(x), quantized.dequantized()(x))


def test_dynamic_activations_are_near_the_float_layer_at_any_magnitude() -> None:
    layer, x = nn.Linear(64, 32), torch.randn(4, 7, 64) * torch.logspace(-3, 3, 7)[:, None]
    wanted, got = layer(x), _quantized(layer, 8, None)(x)
    assert ((got - wanted).norm(dim=-1) / wanted.norm(dim=-1)).max() < 0.02
    with pytest.raises(RecipeMismatch, match="calibrated scale"):
        conv = nn.Conv2d(2, 2, 1)
        quantized = empty_like(conv, 8)
        quantized.assign(quantize_weight(conv.weight, 8), None, conv.bias)
        quantized(torch.randn(1, 2, 3, 3))


def test_the_weight_comes_back_after_the_first_call() -> None:
    for bits in (8, 4):
        for make, shape in LAYERS.values():
            quantized = _quantized(make(), bits, ActivationTable((ActivationParameters(0.02, 128),)))
            before, x = {name: t.clone() for name, t in quantized.state_dict().items()}, torch.randn(shape)
            out = quantized(x)
            assert "weight" not in dict(quantized.named_buffers())
            after = quantized.state_dict()
            assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
            assert torch.equal(copy.deepcopy(quantized)(x), out)
            assert torch.equal(quantized.to("cpu")(x), out)


def test_split_halves_are_the_whole_in_floating_point_and_better_in_integers() -> None:
    torch.manual_seed(0)
    layer, x = nn.Conv2d(48, 16, 1), torch.cat([torch.randn(2, 32, 8, 8) * 100, torch.randn(2, 16, 8, 8)], dim=1)
    with torch.no_grad():
        layer.weight[:, :32] /= 100
        split = SplitConv2d.of(layer, 32)
        torch.testing.assert_close(split(x), layer(x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(split.joined()(x), layer(x), rtol=1e-6, atol=1e-6)
        errors = {}
        for name, model, parts in (
            ("one", nn.Sequential(layer), {"0": x}),
            ("two", split, {"hidden": x[:, :32], "skip": x[:, 32:]}),
        ):
            for part, seen in parts.items():
                table = ActivationTable((ActivationParameters.from_range(seen.min().item(), seen.max().item()),))
                replace_layer(model, part, _quantized(model.get_submodule(part), 8, table))
            errors[name] = (model(x) - layer(x)).square().mean()
    assert 10 * torch.log10(errors["one"] / errors["two"]) > 10
    with pytest.raises(RecipeMismatch, match="cannot be split"):
        SplitConv2d.of(layer, 48)


def test_a_plan_follows_patterns_and_names_stay() -> None:
    model = nn.ModuleDict({"first": nn.Linear(2, 2), "last": nn.Linear(2, 2), "middle": nn.Linear(2, 2)})
    plan = prepare(model, Layout(weight_bits=4, keep_float=("first",), layer_bits={"la*": 8, "last": 2}))
    assert plan.bits == {"last": 8, "middle": 4} and plan.float_layers == ("first",)
    for name, bits in plan.bits.items():
        replace_layer(model, name, empty_like(model.get_submodule(name), bits))
    assert list(quantized_layers(model)) == ["last", "middle"]


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (Layout(keep_float=("nowhere.*",)), "nowhere"),
        (Layout(keep_float=("*",)), "no layer"),
        (Layout(splits={"0": 1}), "no convolution"),
        (Layout(splits={"missing": 1}), "no convolution"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(layout: Layout, message: str) -> None:
    with pytest.raises(RecipeMismatch, match=message):
        prepare(nn.Sequential(nn.Linear(2, 2)), layout)


@pytest.mark.parametrize("bits", [1, 9, 0, -4, "8", 4.0])
def test_odd_weight_bits_are_refused(bits: object) -> None:
    with pytest.raises(RecipeMismatch, match="2 to 8 bits"):
        Layout(weight_bits=bits)  # type: ignore[arg-type]


def test_other_padding_is_refused() -> None:
    with pytest.raises(RecipeMismatch, match="reflect"):
        empty_like(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), 8)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ActivationParameters(0.0, 0), "positive"),
        (ActivationParameters(1e-45, 0), "positive"),
        (ActivationParameters(float("nan"), 0), "positive"),
        (ActivationParameters(0.1, 256), "zero_point"),
        (ActivationParameters(0.1, -1), "zero_point"),
        (ActivationParameters(0.1, 16, 4), "zero_point"),
        (ActivationParameters(0.1, 0, 9), "input_bits"),
        (ActivationParameters(0.1, 0, 1), "input_bits"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(row: ActivationParameters, message: str) -> None:
    good = ActivationParameters(0.1, 3)
    with pytest.raises(CheckpointError, match=f"row 1 of 2: .*{message}"):
        _quantized(nn.Linear(2, 2), 8, ActivationTable((good, row))).check()


def test_a_table_of_another_length_than_the_groups_is_refused() -> None:
    quantized = _quantized(nn.Linear(2, 2), 8, ActivationTable((ActivationParameters(0.1, 3),) * 3))
    quantized.timesteps = TimestepGroups([1, 2])
    with pytest.raises(CheckpointError, match="3 rows for 2 timestep groups"):
        quantized.check()


def test_timesteps_go_to_the_nearest_group() -> None:
    groups = TimestepGroups([981.0, 501.0, 21.0])
    assert [groups.nearest(t) for t in (999, 741.1, 741, 501, 0, 261)] == [0, 0, 0, 1, 2, 1]
    groups.select(torch.tensor([20, 25]))
    assert groups.current == 2
    for bad in (torch.tensor([0, 999]), float("nan"), -1, torch.tensor([float("inf")])):
        with pytest.raises(TimestepError):
            groups.select(bad)
    for bad in ([1.0, 1.0], [-3.0], [float("nan")]):
        with pytest.raises(TimestepError):
            TimestepGroups(bad)
