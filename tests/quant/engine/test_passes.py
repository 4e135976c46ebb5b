"""The passes between products: plain torch against formulas in float64, native kernels against plain torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erf, softmax
from torch import Tensor, nn

from quant.engine import native
from quant.engine.engine import AttentionScales
from quant.engine.native.passes import NativePasses
from quant.engine.passes import TorchPasses
from quant.quantizers.activation import ActivationParameters

TORCH = TorchPasses()
PASSES = [
    pytest.param(TORCH, id="torch"),
    pytest.param(
        NativePasses(), id="native",
        marks=pytest.mark.skipif(not native.available(), reason=f"native kernels: {native.status()}"),
    ),
]  # fmt: skip
both = pytest.mark.parametrize("passes", PASSES)
targets = st.builds(
    lambda bits, share, scale: ActivationParameters(scale, round(share * (2**bits - 1)), bits),
    st.integers(2, 8), st.floats(0, 1), st.floats(0.001, 0.5).map(lambda s: float(np.float32(s))),
)  # fmt: skip
dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])


def _assert_codes(codes: Tensor, values: np.ndarray, to: ActivationParameters, loose: float = 1e-3) -> None:
    """Every code is the nearest level of the value, `loose` levels of doubt at the ties."""
    assert codes.dtype == torch.uint8
    exact = np.clip(values / to.scale + to.zero_point, 0, to.top)
    assert np.abs(codes.numpy() - exact).max(initial=0.0) <= 0.5 + loose


def _randomize(norm: nn.Module) -> None:
    for parameter in norm.parameters():
        nn.init.normal_(parameter)


def _group_normalized(x: np.ndarray, norm: nn.GroupNorm) -> np.ndarray:
    grouped = x.reshape(x.shape[0], norm.num_groups, -1)
    mean, variance = grouped.mean(axis=2, keepdims=True), grouped.var(axis=2, keepdims=True)
    y = ((grouped - mean) / np.sqrt(variance + norm.eps)).reshape(x.shape)
    return y * norm.weight.detach().double().numpy()[:, None, None] + norm.bias.detach().double().numpy()[:, None, None]


@both
@settings(max_examples=80, deadline=None)
@given(
    batch=st.integers(0, 3), groups=st.integers(1, 4), size=st.integers(1, 40), height=st.integers(1, 9),
    width=st.integers(1, 9), offset=st.sampled_from([0.0, 3.0, -50.0]), silu=st.booleans(), shifted=st.booleans(),
    frame=st.tuples(st.integers(0, 2), st.integers(0, 2)), to=targets, dtype=dtypes, last=st.booleans(),
    seed=st.integers(0, 2**16),
)  # fmt: skip
def test_group_norm(
    passes: TorchPasses, batch: int, groups: int, size: int, height: int, width: int, offset: float, silu: bool,
    shifted: bool, frame: tuple[int, int], to: ActivationParameters, dtype: torch.dtype, last: bool, seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    channels = groups * size
    x = (torch.randn(batch, channels, height, width) + offset).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    norm = nn.GroupNorm(groups, channels)
    _randomize(norm)
    shift = torch.randn(batch, channels).to(dtype) if shifted else None
    codes = passes.group_norm(x, norm, to, silu=silu, shift=shift, frame=frame)
    assert codes.shape == (batch, channels, height + 2 * frame[0], width + 2 * frame[1])
    assert codes.is_contiguous(memory_format=torch.channels_last) or not codes.numel()
    added = 0.0 if shift is None else shift.double().numpy()[:, :, None, None]
    y = _group_normalized(x.double().numpy() + added, norm) if batch else np.zeros(x.shape)
    y = y / (1 + np.exp(-y)) if silu else y
    inner = codes[:, :, frame[0] : frame[0] + height, frame[1] : frame[1] + width]
    if batch:  # float32 holds x * weight / deviation to a few parts in 10^7, which is much where x is nearly constant
        summed = x.double().numpy() + added
        deviation = np.sqrt(summed.reshape(batch, groups, -1).var(axis=2).min() + norm.eps)
        slope = float(norm.weight.abs().max()) / deviation
        _assert_codes(inner, y, to, 1e-3 + 3e-6 * (np.abs(summed).max() * slope + np.abs(y).max()) / to.scale)
    outside = codes.clone()
    outside[:, :, frame[0] : frame[0] + height, frame[1] : frame[1] + width] = to.zero_point
    assert bool((outside == to.zero_point).all())


@both
@settings(max_examples=60, deadline=None)
@given(rows=st.integers(0, 9), width=st.integers(1, 90), to=targets, dtype=dtypes, seed=st.integers(0, 2**16))
def test_layer_norm_geglu_and_rows(
    passes: TorchPasses, rows: int, width: int, to: ActivationParameters, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    x = (torch.randn(2, rows, width) * 3 + 1).to(dtype)
    _assert_codes(passes.quantize(x, to), x.double().numpy(), to)
    pair = torch.randn(2, rows, 2 * width).to(dtype) * 3
    value, gate = np.split(pair.double().numpy(), 2, axis=-1)
    _assert_codes(passes.geglu(pair, to), value * gate * 0.5 * (1 + erf(gate / math.sqrt(2))), to)
    norm = nn.LayerNorm(width)
    _randomize(norm)
    y = x.double().numpy()
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + norm.eps)
    y = y * norm.weight.detach().double().numpy() + norm.bias.detach().double().numpy()
    _assert_codes(passes.layer_norm(x, norm, to), y, to, 1e-3 if width > 2 else 0.3 / to.scale)


@both
@settings(max_examples=60, deadline=None)
@given(rows=st.integers(0, 9), width=st.integers(1, 90), dtype=dtypes, seed=st.integers(0, 2**16))
def test_a_scale_per_token_reaches_the_largest_magnitude(
    passes: TorchPasses, rows: int, width: int, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    x = torch.randn(rows, width).to(dtype)
    codes, scale = passes.quantize_per_token(x)
    assert codes.dtype == torch.int8 and scale.shape == (rows,) and scale.dtype == torch.float32
    assert bool((codes.abs().amax(dim=1) == 127).all())
    error = (codes.double() * scale.double()[:, None] - x.double()).abs()
    assert bool((error <= 0.501 * scale[:, None]).all())


@both
@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 2), heads=st.integers(1, 3), queries=st.integers(1, 70), keys=st.integers(1, 300),
    width=st.integers(1, 100), dtype=st.sampled_from([torch.float32, torch.bfloat16]), seed=st.integers(0, 2**16),
)  # fmt: skip
def test_attention(
    passes: TorchPasses, batch: int, heads: int, queries: int, keys: int, width: int, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    packed = torch.randn(batch, max(queries, keys), 3, heads, width).to(dtype)
    inputs = packed[:, :queries, 0], packed[:, :keys, 1], packed[:, :keys, 2]  # strided, as slices of one projection
    q, k, v = inputs
    scale = width**-0.5
    out = passes.attention(*inputs, scale, None)
    assert out.shape == (batch, queries, heads * width) and out.dtype == dtype
    tiles = passes is not TORCH and native.has_tiles()
    if tiles:  # it multiplies in bfloat16, whatever the dtype of the model; without tiles it is torch's
        q, k, v = q.bfloat16(), k.bfloat16(), v.bfloat16()
    scores = np.einsum("blhd,bshd->bhls", q.double().numpy(), k.double().numpy()) * scale
    wanted = np.einsum("bhls,bshd->blhd", softmax(scores, axis=-1), v.double().numpy()).reshape(out.shape)
    # Sums of float32 in another order, which differs between processors: 2.01e-6 was seen without AMX.
    tolerance = 4e-6 if dtype == torch.float32 and not tiles else 1.5e-2
    assert np.abs(out.double().numpy() - wanted).max() <= tolerance * max(np.abs(wanted).max(), 0.1)
    to = ActivationParameters(0.05, 120)
    coded = passes.attention(*inputs, scale, to).double().numpy()
    assert np.abs(coded - np.clip(wanted / to.scale + 120, 0, 255)).max() <= 0.5 + 20 * tolerance * 4


@both
@settings(max_examples=40, deadline=None)
@given(
    heads=st.integers(1, 3), queries=st.integers(1, 70), keys=st.integers(1, 300), width=st.integers(1, 100),
    bits=st.sampled_from([4, 6, 8]), softmax_bits=st.sampled_from([4, 8, 16]), seed=st.integers(0, 2**16),
)  # fmt: skip
def test_integer_attention_is_what_its_codes_say(
    passes: TorchPasses, heads: int, queries: int, keys: int, width: int, bits: int, softmax_bits: int, seed: int
) -> None:
    torch.manual_seed(seed)
    q, k, v = (torch.randn(1, n, heads, width) for n in (queries, keys, keys))
    scales = AttentionScales(0.03, 0.028, 0.032, bits, softmax_bits)
    out = passes.attention(q, k, v, width**-0.5, None, scales).double().numpy()
    top = 2 ** (bits - 1) - 1
    coded = [
        np.clip(np.rint(x.numpy() * np.float32(1 / s)), -top, top)
        for x, s in ((q, scales.query), (k, scales.key), (v, scales.value))
    ]
    scores = np.einsum("blhd,bshd->bhls", coded[0], coded[1]).astype(np.float64)
    scores *= scales.query * scales.key * width**-0.5
    weights = np.rint(np.exp(scores - scores.max(axis=-1, keepdims=True)) * (2**softmax_bits - 1))
    wanted = np.einsum("bhls,bshd->blhd", weights / weights.sum(-1, keepdims=True), coded[2]).reshape(out.shape)
    # A weight that lies on a tie may go either way, one level of one key's value; exponents are float32.
    largest = scales.value * top
    assert np.abs(out - wanted * scales.value).max() <= largest * (3 / max(weights.sum(-1).min(), 1) + 1e-4)


@both
def test_what_is_not_finite_has_defined_codes(passes: TorchPasses) -> None:
    to = ActivationParameters(0.1, 100)
    x = torch.tensor([[float("nan"), float("inf"), -float("inf"), 0.0, 1e38, -1e38]])
    assert passes.quantize(x, to).tolist() == [[100, 255, 0, 100, 255, 0]]
    picture = x.view(1, 1, 2, 3).expand(1, 2, 2, 3)
    assert passes.quantize_image(picture, to)[0, 1].flatten().tolist() == [100, 255, 0, 100, 255, 0]
    codes, scale = passes.quantize_per_token(torch.tensor([[float("nan"), float("inf"), 2.0], [0.0, 0.0, 0.0]]))
    assert codes.tolist() == [[0, 127, 127], [0, 0, 0]]
    assert bool(scale.isfinite().all()) and scale[0].item() == pytest.approx(2.0 / 127)


@pytest.mark.skipif(not native.available(), reason=f"native kernels: {native.status()}")
def test_native_kernels_refuse_what_they_cannot_do() -> None:
    x = torch.randn(2, 8)
    for scale, zero_point, top in (
        (0.0, 0, 255),
        (-1.0, 0, 255),
        (1e-45, 0, 255),
        (0.1, 300, 255),
        (0.1, -1, 255),
        (0.1, 0, 999),
    ):
        with pytest.raises(RuntimeError, match=r"scale|zero point"):
            torch.ops.facsimile.quantize_rows(x, scale, zero_point, top)
    with pytest.raises(RuntimeError, match="float32 or bfloat16"):
        torch.ops.facsimile.quantize_rows(x.half(), 0.1, 0, 255)
    with pytest.raises(RuntimeError, match="does not go with"):
        torch.ops.facsimile.attention(torch.randn(1, 3, 2, 8), torch.randn(1, 3, 2, 4), torch.randn(1, 3, 2, 4), 1.0)
    with pytest.raises(RuntimeError, match="at least one key"):
        torch.ops.facsimile.attention(torch.randn(1, 3, 2, 8), torch.randn(1, 0, 2, 8), torch.randn(1, 0, 2, 8), 1.0)
