"""Codes and scales against their definitions, over many drawn tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quant.errors import QuantError
from quant.observers.minmax import MinMaxObserver
from quant.quantizers.activation import ActivationParameters
from quant.quantizers.weight import minmax_scale, mse_scale, quantize_weight
from quant.tensor.packing import pack_int4, unpack_int4
from tests.support.fake_quantized import fake_quantized

finite = st.floats(-1e4, 1e4, width=32)
floats = arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 9)), elements=finite)


@settings(max_examples=200, deadline=None)
@given(floats, st.sampled_from([4, 8]))
def test_weight_error_is_at_most_half_a_level(weight: np.ndarray, bits: int) -> None:
    quantized = quantize_weight(torch.from_numpy(weight), bits)
    top = 2 ** (bits - 1) - 1
    assert quantized.codes.abs().max() <= top
    step = np.abs(weight).max(axis=1, keepdims=True) / top
    error = np.abs(quantized.dequantize().numpy().astype(np.float64) - weight)
    assert (error <= step * 0.5 * (1 + 1e-5) + 1e-30).all()


@settings(max_examples=200, deadline=None)
@given(floats, finite, finite)
def test_activation_codes_are_the_nearest_level_inside_the_range(x: np.ndarray, a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    parameters = ActivationParameters.from_range(low, high)
    assert parameters.dequantize(torch.tensor([parameters.zero_point], dtype=torch.uint8)).item() == 0.0
    codes = parameters.quantize(torch.from_numpy(x))
    assert codes.dtype == torch.uint8 and codes.shape == x.shape
    exact = np.clip(x.astype(np.float64) / parameters.scale + parameters.zero_point, 0, 255)
    assert (np.abs(codes.numpy() - exact) <= 0.5 + 1e-3).all()


def test_quantize_keeps_the_memory_format() -> None:
    x = torch.randn(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    codes = ActivationParameters(0.1, 7).quantize(x)
    assert codes.is_contiguous(memory_format=torch.channels_last)


@settings(max_examples=200, deadline=None)
@given(arrays(np.int8, st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3)), elements=st.integers(-8, 7)))
def test_packing_comes_back(codes: np.ndarray) -> None:
    tensor = torch.from_numpy(codes)
    packed = pack_int4(tensor)
    assert packed.shape == (codes.shape[0], (codes[0].size + 1) // 2)
    assert torch.equal(unpack_int4(packed, tensor.shape), tensor)


def test_packing_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="4-bit"):
        pack_int4(torch.tensor([[8]], dtype=torch.int8))
    with pytest.raises(ValueError, match="cannot hold"):
        unpack_int4(torch.zeros(2, 2, dtype=torch.uint8), (2, 5))


def test_observer_widens_and_refuses_what_is_not_finite() -> None:
    observer = MinMaxObserver()
    for values in ([1.0, 2.0], [-3.0], []):
        observer.observe(torch.tensor(values))
    assert (observer.low, observer.high) == (-3.0, 2.0)
    for bad in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(QuantError, match="not finite"):
            observer.observe(torch.tensor([0.0, bad]))


def test_an_empty_channel_has_zero_codes() -> None:
    quantized = quantize_weight(torch.tensor([[0.0, 0.0], [1.0, -1.0]]), 8)
    assert quantized.codes.tolist() == [[0, 0], [127, -127]]
    assert torch.isfinite(quantized.scale).all()


def _signal_to_noise(exact: torch.Tensor, quantized: torch.Tensor) -> float:
    noise = (exact.double() - quantized.double()).square().sum()
    return float(10 * torch.log10(exact.double().square().sum() / noise))


def _mean_error(weight: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    return (weight.double() - quantized.double()).abs().pow(2.4).mean(dim=1)


def test_a_bit_is_worth_six_decibels() -> None:
    """Uniform noise of step^2 / 12 within min-max ranges of 2e5 normal values. Symmetric grids have a level less, which
    is why their first bits are worth a little more."""
    x = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    low, high, largest = x.min().item(), x.max().item(), x.abs().max().item()
    activation, weight = {}, {}
    for bits in (4, 6, 8):
        activation[bits] = _signal_to_noise(x, fake_quantized(x, ActivationParameters.from_range(low, high, bits)))
        weight[bits] = _signal_to_noise(x, quantize_weight(x[None], bits).dequantize()[0])
        steps = (high - low) / (2**bits - 1), 2 * largest / (2**bits - 2)
        assert activation[bits] == pytest.approx(10 * np.log10(12 / steps[0] ** 2), abs=0.15)
        assert weight[bits] == pytest.approx(10 * np.log10(12 / steps[1] ** 2), abs=0.15)
    assert (activation[8] - activation[4]) / 4 == pytest.approx(6.0, abs=0.3)
    assert (weight[8] - weight[4]) / 4 == pytest.approx(20 * np.log10(127 / 7) / 4, abs=0.05)
    for found in (activation, weight):
        assert found[6] == pytest.approx(27.4, abs=0.6) and found[8] == pytest.approx(39.5, abs=0.6)


@settings(max_examples=200, deadline=None)
@given(floats, finite, finite, st.sampled_from([2, 4, 8]))
def test_quantization_is_idempotent_and_within_half_a_step(x: np.ndarray, a: float, b: float, bits: int) -> None:
    parameters = ActivationParameters.from_range(min(a, b), max(a, b), bits)
    tensor = torch.from_numpy(x)
    codes = parameters.quantize(tensor)
    values = parameters.dequantize(codes)
    assert int(codes.max()) <= 2**bits - 1
    assert torch.equal(parameters.dequantize(parameters.quantize(values)), values)
    low, high = -parameters.zero_point * parameters.scale, (parameters.top - parameters.zero_point) * parameters.scale
    inside = (tensor >= low) & (tensor <= high)
    assert ((values - tensor).abs()[inside] <= parameters.scale * (0.5 + 1e-4)).all()
    assert (parameters.quantize(torch.zeros(3)) == parameters.zero_point).all()
    assert (fake_quantized(torch.zeros(3), parameters) == 0.0).all()

    weight = quantize_weight(tensor, bits).dequantize()
    scale = minmax_scale(tensor, bits)
    assert torch.equal(quantize_weight(weight, bits, scale).dequantize(), weight)
    assert (weight[tensor == 0.0] == 0.0).all()


@settings(max_examples=200, deadline=None)
@given(floats, st.sampled_from([2, 3, 4, 8]))
def test_the_search_for_scales_is_never_worse_than_min_max(weight: np.ndarray, bits: int) -> None:
    tensor = torch.from_numpy(weight)
    scale = mse_scale(tensor, bits)
    assert scale.dtype == torch.float32 and scale.shape == tensor.shape[:1]
    found = _mean_error(tensor, quantize_weight(tensor, bits, scale).dequantize())
    widest = _mean_error(tensor, quantize_weight(tensor, bits).dequantize())
    assert (found <= widest * (1 + 1e-4) + 1e-30).all()
    shrinks = (scale / minmax_scale(tensor, bits)).double()
    assert (shrinks > 0.2).all() and (shrinks <= 1.0).all()


def test_the_search_for_scales_finds_the_best_candidate_of_every_channel() -> None:
    weight = torch.randn(6, 3, 4, 5, generator=torch.Generator().manual_seed(1)).exp()
    weight[3, 0, 0, 0] = 30.0  # one outlier
    widest = minmax_scale(weight, 4)
    candidates = [quantize_weight(weight, 4, widest * (1 - 0.01 * i)).dequantize() for i in range(80)]
    errors = torch.stack([_mean_error(weight.flatten(1), each.flatten(1)) for each in candidates])
    scale = mse_scale(weight, 4)
    found = _mean_error(weight.flatten(1), quantize_weight(weight, 4, scale).dequantize().flatten(1))
    assert torch.allclose(found, errors.amin(dim=0), rtol=1e-4)
    assert (scale / widest).min() < 0.9


def test_one_outlier_does_not_cost_a_channel_its_levels() -> None:
    weight = torch.randn(2, 4000, generator=torch.Generator().manual_seed(2))
    weight[:, 17] = 15.0
    found = _mean_error(weight, quantize_weight(weight, 4, mse_scale(weight, 4)).dequantize())
    assert (found < 0.7 * _mean_error(weight, quantize_weight(weight, 4).dequantize())).all()


def test_given_scales_are_used_and_checked() -> None:
    weight = torch.tensor([[1.0, -0.26], [0.5, 100.0]])
    quantized = quantize_weight(weight, 4, torch.tensor([0.25, 0.5]))
    assert quantized.codes.tolist() == [[4, -1], [1, 7]]
    assert quantized.dequantize().tolist() == [[1.0, -0.25], [0.5, 3.5]]
    assert torch.equal(quantize_weight(weight, 4, minmax_scale(weight, 4)).codes, quantize_weight(weight, 4).codes)
    for scale in ([0.1], [0.1, 0.0], [0.1, -1.0], [0.1, float("nan")], [0.1, float("inf")]):
        with pytest.raises(QuantError, match="scales of a weight"):
            quantize_weight(weight, 4, torch.tensor(scale))
    empty = mse_scale(torch.zeros(2, 3), 4)
    assert (empty > 0).all() and quantize_weight(torch.zeros(2, 3), 4, empty).codes.tolist() == [[0] * 3] * 2
