"""Fake quantization: the integers' values, and LSQ's gradients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from quant.engine.native import library
from quant.layers.timesteps import SampleGroups
from quant.layers.trainable import fake_quantize as module
from quant.layers.trainable.fake_quantize import fake_quantize
from quant.layers.trainable.input import InputQuantizer
from quant.quantizers.activation import FLOAT_BITS, ActivationParameters

RANGES = [(-1.3, 2.9), (0.0, 5.1), (-4.2, 0.0), (-0.02, 0.017)]


@pytest.fixture(params=["native", "torch"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Both ways of computing the same."""
    if request.param == "native" and not library.available():
        pytest.skip(library.status())
    if request.param == "torch":
        monkeypatch.setattr(module, "_native", lambda _: False)
    yield request.param


def _values(*shape: int, seed: int = 0) -> Tensor:
    return 1.7 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _ends(rows: list[ActivationParameters]) -> tuple[Tensor, Tensor, Tensor]:
    zero = torch.tensor([float(row.zero_point) for row in rows])
    top = torch.tensor([float(row.top) for row in rows])
    return torch.tensor([row.scale for row in rows]), -zero, top - zero


@pytest.mark.parametrize("bits", [2, 4, 6, 8])
@pytest.mark.parametrize("shape", [(4, 37), (4, 5, 24), (4, 8, 7, 5)])
def test_values_are_those_of_the_codes_bit_for_bit(path: str, bits: int, shape: tuple[int, ...]) -> None:
    rows = [ActivationParameters.from_range(*ends, bits) for ends in RANGES]
    x = _values(*shape)
    x[:, 0] = torch.tensor([0.5, 1.5, -2.5, 3.5]).view(-1, *[1] * (x.ndim - 2)) * _ends(rows)[0].view(
        -1, *[1] * (x.ndim - 2)
    )  # halves round to even
    wanted = torch.stack([row.dequantize(row.quantize(own)) for row, own in zip(rows, x, strict=True)])
    assert torch.equal(fake_quantize(x, *_ends(rows)), wanted)


def test_channels_last_and_strided_values_are_the_same(path: str) -> None:
    rows = [ActivationParameters.from_range(*ends, 4) for ends in RANGES]
    x, ends = _values(4, 8, 6, 5), _ends(rows)
    plain = fake_quantize(x, *ends)
    last = fake_quantize(x.contiguous(memory_format=torch.channels_last), *ends)
    strided = fake_quantize(x.transpose(0, 1).contiguous().transpose(0, 1), *ends)
    assert torch.equal(last, plain) and torch.equal(strided, plain)
    assert last.is_contiguous(memory_format=torch.channels_last)


def _gradients(x: Tensor, ends: tuple[Tensor, Tensor, Tensor], upstream: Tensor) -> tuple[Tensor, Tensor]:
    x, scale = x.detach().requires_grad_(True), ends[0].clone().requires_grad_(True)
    fake_quantize(x, scale, *ends[1:]).backward(upstream)
    assert x.grad is not None and scale.grad is not None
    return x.grad, scale.grad


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_those_of_lsq(path: str, memory: torch.memory_format) -> None:
    """LSQ, arXiv 1902.08153, equation 3, in float64."""
    ends = _ends([ActivationParameters.from_range(*one, 4) for one in RANGES])
    x, upstream = _values(4, 8, 31, 29).contiguous(memory_format=memory), _values(4, 8, 31, 29, seed=1)
    to_x, to_scale = _gradients(x, ends, upstream)
    scale, low, high = (end.double().view(-1, 1, 1, 1) for end in ends)
    v = x.double() / scale
    slope = torch.where(v <= low, low, torch.where(v >= high, high, v.round() - v))
    wanted = (slope * upstream.double()).flatten(1).sum(dim=1)
    size = (slope * upstream.double()).abs().flatten(1).sum(dim=1)
    assert ((to_scale.double() - wanted).abs() / size).max() <= 1e-6
    assert torch.equal(to_x, torch.where((v > low) & (v < high), upstream, 0.0))


def test_bfloat16_computes_in_float32_and_rounds_once(path: str) -> None:
    ends = _ends([ActivationParameters.from_range(*one, 6) for one in RANGES])
    x, upstream = _values(4, 300).bfloat16(), _values(4, 300, seed=1).bfloat16()
    assert torch.equal(fake_quantize(x, *ends), fake_quantize(x.float(), *ends).bfloat16())
    to_x, to_scale = _gradients(x, ends, upstream)
    float_x, float_scale = _gradients(x.float(), ends, upstream.float())
    assert to_x.dtype == torch.bfloat16 and to_scale.dtype == torch.float32
    assert torch.equal(to_x, float_x.bfloat16()) and torch.allclose(to_scale, float_scale, rtol=1e-5, atol=1e-4)


def test_a_scale_of_zero_leaves_its_row(path: str) -> None:
    scale, low, high = _ends([ActivationParameters.from_range(*one, 3) for one in RANGES])
    scale[1] = 0.0
    x, upstream = _values(4, 50), _values(4, 50, seed=1)
    out = fake_quantize(x, scale, low, high)
    to_x, to_scale = _gradients(x, (scale, low, high), upstream)
    assert torch.equal(out[1], x[1]) and not torch.equal(out[0], x[0])
    assert torch.equal(to_x[1], upstream[1]) and to_scale[1] == 0.0 and to_scale[0] != 0.0
    assert bool(out.isfinite().all()) and bool(to_scale.isfinite().all())


def test_what_is_no_number_stays_so(path: str) -> None:
    """A training that has diverged must be seen in the loss."""
    ends, x = _ends([ActivationParameters.from_range(*one, 6) for one in RANGES]), _values(4, 50)
    x[1, 3] = float("nan")
    assert fake_quantize(x, *ends).isnan().sum() == 1


def test_both_paths_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    if not library.available():
        pytest.skip(library.status())
    ends = _ends([ActivationParameters.from_range(*one, 5) for one in RANGES])
    x, upstream = _values(4, 9, 11, 3), _values(4, 9, 11, 3, seed=1)
    native = fake_quantize(x, *ends), *_gradients(x, ends, upstream)
    monkeypatch.setattr(module, "_native", lambda _: False)
    plain = fake_quantize(x, *ends), *_gradients(x, ends, upstream)
    assert torch.equal(native[0], plain[0]) and torch.equal(native[1], plain[1])
    assert torch.allclose(native[2], plain[2], rtol=1e-5, atol=1e-4)


def _quantizer(rows: int = 5, bits: int = 4) -> InputQuantizer:
    groups = SampleGroups(tuple(100.0 * k for k in range(rows)))
    quantizer = InputQuantizer(groups, bits)
    for group in range(rows):
        quantizer.set_range(group, -1.0 - 0.1 * group, 1.5 + 0.2 * group)
    quantizer.enabled = True
    return quantizer


def test_only_the_rows_of_a_batch_have_gradients() -> None:
    quantizer = _quantizer()
    quantizer.log_change.requires_grad_(True)
    quantizer.groups.select(torch.tensor([100.0, 300.0, 100.0]))
    quantizer(_values(3, 40)).pow(2).sum().backward()
    gradient = quantizer.log_change.grad
    assert gradient is not None
    assert gradient[[0, 2, 4]].tolist() == [0.0, 0.0, 0.0] and bool((gradient[[1, 3]] != 0.0).all())


def test_samples_of_a_batch_take_the_row_of_their_timestep() -> None:
    quantizer, x = _quantizer(), _values(3, 40)
    quantizer.groups.select(torch.tensor([400.0, 0.0, 210.0]))
    wanted = [quantizer.table.at(group) for group in (4, 0, 2)]
    out = quantizer(x)
    for row, got, own in zip(wanted, out, x, strict=True):
        assert torch.equal(got, row.dequantize(row.quantize(own)))


def test_sixteen_bits_are_floats() -> None:
    quantizer, x = _quantizer(), _values(2, 40)
    quantizer.bits[3] = FLOAT_BITS
    quantizer.set_range(3, -1.0, 1.0)
    quantizer.groups.select(torch.tensor([300.0, 100.0]))
    quantizer.log_change.requires_grad_(True)
    out = quantizer(x)
    out.pow(2).sum().backward()
    assert torch.equal(out[0], x[0]) and not torch.equal(out[1], x[1])
    assert quantizer.log_change.grad is not None and quantizer.log_change.grad[3] == 0.0


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_scale_stays_positive_whatever_the_optimizer_does(sign: float) -> None:
    quantizer = _quantizer(rows=1)
    quantizer.groups.select(0.0)
    parameter = quantizer.log_change.requires_grad_(True)
    optimizer, x = torch.optim.Adam([parameter], lr=0.1), _values(1, 200)
    for _ in range(300):
        optimizer.zero_grad()
        (sign * quantizer(x).abs().sum()).backward()
        optimizer.step()
    parameter.requires_grad_(False)
    quantizer.settle()
    assert 0.0 < float(quantizer.scale[0]) < float("inf") and float(quantizer.log_change[0]) == 0.0


def test_dropped_values_stay_as_they_are_and_only_while_training() -> None:
    """QDrop, arXiv 2203.05740."""
    quantizer, x = _quantizer(rows=1), _values(1, 20_000)
    quantizer.groups.select(0.0)
    with torch.no_grad():
        quantized = quantizer(x)
        quantizer.drop = 0.3
        assert torch.equal(quantizer(x), quantized)
    torch.manual_seed(0)
    out = quantizer(x)
    kept = out == x
    assert torch.equal(torch.where(kept, quantized, out), quantized)
    assert 0.28 < kept.float().mean() < 0.32
