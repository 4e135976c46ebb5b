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
from quant.quantizers.weight import quantize_weight
from quant.tensor.packing import pack_int4, unpack_int4

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


@settings(max_examples=200, deadline=None)
@given(floats, finite, finite)
def test_fake_quantization_stands_for_the_same_codes(x: np.ndarray, a: float, b: float) -> None:
    parameters = ActivationParameters.from_range(min(a, b), max(a, b))
    tensor = torch.from_numpy(x).requires_grad_()
    fake = parameters.fake_quantize(tensor)
    levels = (fake.detach().double() / parameters.scale + parameters.zero_point).numpy()
    assert np.allclose(levels, parameters.quantize(tensor.detach()).numpy(), atol=1e-2)
    fake.sum().backward()
    low, high = (0 - parameters.zero_point) * parameters.scale, (255 - parameters.zero_point) * parameters.scale
    inside = (x > low * (1 - 1e-5)) & (x < high * (1 - 1e-5))
    outside = (x < low * (1 + 1e-5) - 1e-30) | (x > high * (1 + 1e-5) + 1e-30)
    assert tensor.grad is not None
    assert (tensor.grad.numpy()[inside] == 1.0).all() and (tensor.grad.numpy()[outside] == 0.0).all()


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
