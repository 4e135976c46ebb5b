"""Integer engines against arithmetic written out here, and the fast ones against the exact one over many layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import correlate
from torch.utils._python_dispatch import TorchDispatchMode

from quant.engine import native
from quant.engine.engine import Engine, Operands, Window
from quant.engine.reference import ReferenceEngine
from quant.engine.selection import default_engine, select, self_test
from quant.errors import KernelError
from quant.quantizers.activation import ActivationParameters, ActivationTable
from tests.support.engines import ENGINES, ONEDNN, REFERENCE, needs_onednn

engines = pytest.mark.parametrize("engine", ENGINES)
zero_points = st.one_of(st.sampled_from([0, 255]), st.integers(0, 255))
dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])
ROUNDING = {torch.float32: 2e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def _operands(
    rng: np.random.Generator, shape: tuple[int, ...], zero_points: list[int], bias: bool, top: int = 127
) -> Operands:
    codes = torch.from_numpy(rng.integers(-top, top + 1, shape).astype(np.int8))
    scale = torch.from_numpy((rng.random(shape[0]) + 0.01).astype(np.float32))
    offset = torch.from_numpy(rng.normal(size=shape[0]).astype(np.float32)) if bias else None
    rows = tuple(ActivationParameters(0.013 / (i + 1), zero) for i, zero in enumerate(zero_points))
    return Operands(codes, scale, offset, ActivationTable(rows))


def _framed(rng: np.random.Generator, shape: tuple[int, ...], zero_point: int, padding: int) -> torch.Tensor:
    codes = rng.integers(0, 256, shape).astype(np.uint8)
    frame = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    return torch.from_numpy(np.pad(codes, frame, constant_values=zero_point))


def _convolved(codes: torch.Tensor, operands: Operands, window: Window, group: int) -> NDArray[np.float64]:
    """The definition of a convolution, by scipy, group by group, then strided."""
    inputs, weight = operands.inputs.at(group), operands.codes.double().numpy()
    (dy, dx), (sy, sx) = window.dilation, window.stride
    x = codes.double().numpy() - inputs.zero_point
    kernel = np.zeros((*weight.shape[:2], (weight.shape[2] - 1) * dy + 1, (weight.shape[3] - 1) * dx + 1))
    kernel[:, :, ::dy, ::dx] = weight
    width, per_group = weight.shape[1], weight.shape[0] // window.groups
    out = []
    for n in range(weight.shape[0]):
        first = n // per_group * width
        out.append(
            [correlate(image[first : first + width], kernel[n], mode="valid", method="direct")[0] for image in x]
        )
    sums = np.stack(out, axis=1)[:, :, ::sy, ::sx]
    scaled = sums * (operands.weight_scale.double().numpy() * inputs.scale)[:, None, None]
    return scaled if operands.bias is None else scaled + operands.bias.double().numpy()[:, None, None]


def _close(got: torch.Tensor, wanted: NDArray[np.float64], relative: float = 2e-6, added: float = 0.0) -> None:
    worst = np.abs(got.double().numpy() - wanted).max(initial=0.0)
    assert worst <= relative * max(np.abs(wanted).max(initial=0.0), 1.0) + 1e-6 * added


def _zero_point_term(operands: Operands, group: int) -> float:
    """The largest zero_point * scale * sum(weight), which a kernel may add as a float32 bias: it rounds like one."""
    inputs, sums = operands.inputs.at(group), operands.codes.double().flatten(1).sum(dim=1)
    return float((sums * operands.weight_scale * inputs.scale * inputs.zero_point).abs().max())


@engines
@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 9), inputs=st.integers(1, 70), outputs=st.integers(1, 40), zero_point=zero_points,
    bias=st.booleans(), seed=st.integers(0, 2**16),
)  # fmt: skip
def test_linear_by_its_definition(
    engine: Engine, rows: int, inputs: int, outputs: int, zero_point: int, bias: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    operands = _operands(rng, (outputs, inputs), [3, zero_point], bias)
    x = rng.integers(0, 256, (2, rows, inputs))
    sums = (x.astype(np.float64) - zero_point) @ operands.codes.double().numpy().T
    wanted = sums * (operands.weight_scale.double().numpy() * operands.inputs.at(1).scale)
    if operands.bias is not None:
        wanted = wanted + operands.bias.double().numpy()
    kernel = engine.linear(operands)
    got = kernel(torch.from_numpy(x.astype(np.uint8)), 1, torch.float32)
    assert got.shape == (2, rows, outputs)
    _close(got, wanted)
    residual = torch.from_numpy(rng.normal(size=got.shape).astype(np.float32))
    kept = residual.clone()
    _close(kernel(torch.from_numpy(x.astype(np.uint8)), 1, torch.float32, residual), wanted + kept.double().numpy())
    assert torch.equal(residual, kept)


@engines
@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)), kernel=st.sampled_from([1, 3]),
    stride=st.sampled_from([1, 2]), padding=st.integers(0, 2), dilation=st.sampled_from([1, 2]),
    groups=st.sampled_from([1, 2]), channels=st.integers(1, 7), outputs=st.integers(1, 6), zero_point=zero_points,
    bias=st.booleans(), seed=st.integers(0, 2**16),
)  # fmt: skip
def test_convolution_by_its_definition(
    engine: Engine, size: tuple[int, int], kernel: int, stride: int, padding: int, dilation: int, groups: int,
    channels: int, outputs: int, zero_point: int, bias: bool, seed: int,
) -> None:  # fmt: skip
    reach = (kernel - 1) * dilation + 1
    if min(size) + 2 * padding < reach:
        size = (reach, reach)
    rng = np.random.default_rng(seed)
    operands = _operands(rng, (outputs * groups, channels, kernel, kernel), [3, zero_point], bias)
    window = Window((stride, stride), (padding, padding), (dilation, dilation), groups)
    codes = _framed(rng, (2, channels * groups, *size), zero_point, padding)
    prepared, wanted = engine.conv2d(operands, window), _convolved(codes, operands, window, 1)
    term = _zero_point_term(operands, 1)
    _close(prepared(codes, 1, torch.float32), wanted, added=term)
    residual = torch.from_numpy(rng.normal(size=wanted.shape).astype(np.float32))
    _close(prepared(codes, 1, torch.float32, residual.clone()), wanted + residual.double().numpy(), added=term)
    assert torch.equal(prepared.codes(), operands.codes)


@needs_onednn
@settings(max_examples=1200, deadline=None)
@given(
    batch=st.integers(0, 3), rows=st.integers(1, 40), inputs=st.integers(1, 300), outputs=st.integers(1, 130),
    groups=st.lists(zero_points, min_size=1, max_size=4), bias=st.booleans(), top=st.sampled_from([1, 7, 127]),
    dtype=dtypes, seed=st.integers(0, 2**16),
)  # fmt: skip
def test_the_fast_linear_equals_the_exact_one(
    batch: int, rows: int, inputs: int, outputs: int, groups: list[int], bias: bool, top: int, dtype: torch.dtype,
    seed: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    operands = _operands(rng, (outputs, inputs), groups, bias, top)
    x = torch.from_numpy(rng.integers(0, 256, (batch, rows, inputs)).astype(np.uint8))
    fast, exact, group = ONEDNN.linear(operands, packed=top <= 7), REFERENCE.linear(operands), len(groups) - 1
    got, wanted = fast(x, group, dtype), exact(x, group, torch.float64)
    assert got.dtype == dtype and got.shape == wanted.shape
    _close(got, wanted.numpy(), ROUNDING[dtype])
    assert torch.equal(fast.codes(), operands.codes)


@needs_onednn
@settings(max_examples=1200, deadline=None)
@given(
    batch=st.integers(0, 2), size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    kernel=st.sampled_from([1, 2, 3, 5]), stride=st.integers(1, 3), padding=st.integers(0, 2),
    dilation=st.integers(1, 2), parts=st.sampled_from([1, 1, 2, 3]), channels=st.integers(1, 70),
    outputs=st.integers(1, 40), groups=st.lists(zero_points, min_size=1, max_size=3), bias=st.booleans(),
    top=st.sampled_from([1, 7, 127]), dtype=st.sampled_from([torch.float32, torch.bfloat16]), last=st.booleans(),
    seed=st.integers(0, 2**16),
)  # fmt: skip
def test_the_fast_convolution_equals_the_exact_one(
    batch: int, size: tuple[int, int], kernel: int, stride: int, padding: int, dilation: int, parts: int, channels: int,
    outputs: int, groups: list[int], bias: bool, top: int, dtype: torch.dtype, last: bool, seed: int,
) -> None:  # fmt: skip
    reach = (kernel - 1) * dilation + 1
    size = (max(size[0], reach - 2 * padding), max(size[1], reach - 2 * padding))
    rng, group = np.random.default_rng(seed), len(groups) - 1
    operands = _operands(rng, (outputs * parts, channels, kernel, kernel), groups, bias, top)
    window = Window((stride, stride), (padding, padding), (dilation, dilation), parts)
    codes = _framed(rng, (batch, channels * parts, *size), groups[group], padding)
    codes = codes.contiguous(memory_format=torch.channels_last) if last else codes
    fast, exact = ONEDNN.conv2d(operands, window, packed=top <= 7), REFERENCE.conv2d(operands, window)
    got, wanted = fast(codes, group, dtype), exact(codes, group, torch.float64)
    assert got.dtype == dtype and got.shape == wanted.shape
    _close(got, wanted.numpy(), ROUNDING[dtype], _zero_point_term(operands, group))
    assert torch.equal(fast.codes(), operands.codes)


@engines
@settings(max_examples=60, deadline=None)
@given(groups=st.lists(zero_points, min_size=1, max_size=6), seed=st.integers(0, 2**16))
def test_a_table_equals_one_kernel_per_group(engine: Engine, groups: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    table, image = _operands(rng, (9, 21), groups, True), _operands(rng, (6, 5, 3, 3), groups, True)
    window = Window(padding=(1, 1))
    whole, pictures = engine.linear(table), engine.conv2d(image, window)
    for group, zero in enumerate(groups):
        row = ActivationTable((table.inputs.rows[group],))
        x = torch.from_numpy(rng.integers(0, 256, (4, 21)).astype(np.uint8))
        single = engine.linear(replace(table, inputs=row))
        assert torch.equal(whole(x, group, torch.float32), single(x, 0, torch.float32))
        codes = _framed(rng, (1, 5, 4, 4), zero, 1)
        alone = engine.conv2d(replace(image, inputs=row), window)
        assert torch.equal(pictures(codes, group, torch.float32), alone(codes, 0, torch.float32))


@engines
@settings(max_examples=60, deadline=None)
@given(rows=st.integers(0, 7), inputs=st.integers(1, 70), outputs=st.integers(1, 40), seed=st.integers(0, 2**16))
def test_a_scale_per_token(engine: Engine, rows: int, inputs: int, outputs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    operands = _operands(rng, (outputs, inputs), [0], True)
    x, scale = rng.integers(-127, 128, (rows, inputs)), rng.random(rows) + 0.01
    wanted = (x @ operands.codes.double().numpy().T) * scale.astype(np.float32)[:, None] * operands.weight_scale.numpy()
    got = engine.linear(operands).per_token(
        torch.from_numpy(x.astype(np.int8)), torch.from_numpy(scale.astype(np.float32)), torch.float32
    )
    assert operands.bias is not None
    _close(got, wanted + operands.bias.double().numpy())


@needs_onednn
def test_one_kernel_serves_changing_sizes() -> None:
    operands, window = _operands(np.random.default_rng(0), (5, 3, 3, 3), [100], True), Window(padding=(1, 1))
    kernel = ONEDNN.conv2d(operands, window)
    for side in (8, 5, 8):
        codes = _framed(np.random.default_rng(side), (1, 3, side, side), 100, 1)
        _close(kernel(codes, 0, torch.float32), _convolved(codes, operands, window, 0))


@pytest.mark.skipif(not native.available(), reason=f"native kernels: {native.status()}")
def test_packed_weights_take_half_the_memory_and_give_the_same_numbers() -> None:
    rng = np.random.default_rng(0)
    operands = _operands(rng, (128, 256), [90], True, top=7)
    plain, packed = ONEDNN.linear(operands), ONEDNN.linear(operands, packed=True)
    x = torch.from_numpy(rng.integers(0, 256, (5, 256)).astype(np.uint8))
    assert torch.equal(plain(x, 0, torch.float32), packed(x, 0, torch.float32))
    assert packed.resident_bytes() < 0.6 * plain.resident_bytes()


def test_self_test_catches_a_wrong_engine() -> None:
    class Wrong(ReferenceEngine):
        name = "wrong"

        def linear(self, operands: Operands, packed: bool = False):  # type: ignore[no-untyped-def]
            kernel = super().linear(operands)
            return lambda x, group, dtype: kernel(x, group, dtype) * 1.001

    with pytest.raises(KernelError, match="wrong"):
        self_test(Wrong())


def test_the_default_engine_passes_its_self_test_and_says_why_it_was_chosen() -> None:
    self_test(default_engine())
    reasons = " ".join(select().reasons)
    assert default_engine().name in reasons and "passes" in reasons


def test_an_unknown_device_gets_the_exact_emulation() -> None:
    assert select("meta").engine.name == "reference"


class _Sources(TorchDispatchMode):
    """Remembers the dtype of what every quantized linear layer multiplies."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: list[torch.dtype] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "qlinear_pointwise" in str(function):
            self.dtypes.append(args[0].dtype)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("tokens", [(1,), (3, 9), (2, 0), (512,)])
def test_a_scale_per_token_needs_no_signed_kernel_without_amx(
    tokens: tuple[int, ...], bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    operands = _operands(rng, (24, 40), [0], bias, top=60)  # sums of pairs stay below 16 bits on every processor
    codes = torch.from_numpy(rng.integers(-127, 128, (*tokens, 40)).astype(np.int8))
    scale = torch.from_numpy((rng.random(tokens) + 0.01).astype(np.float32))
    wanted = REFERENCE.linear(operands).per_token(codes, scale, torch.float32)
    monkeypatch.setattr(native, "has_tiles", lambda: False)
    for source in (codes, codes.expand(2, *codes.shape)[1], torch.cat([codes, codes], dim=-1)[..., :40]):
        with _Sources() as sources:
            out = ONEDNN.linear(operands).per_token(source, scale, torch.float32)
        assert set(sources.dtypes) <= {torch.uint8} and (sources.dtypes or not codes.numel())
        torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-4)
