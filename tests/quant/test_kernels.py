"""Integer engines against float64 arithmetic written out here."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import correlate

from quant.errors import KernelError
from quant.kernels.engine import Engine, Operands, Window
from quant.kernels.onednn import OneDNNEngine
from quant.kernels.reference import ReferenceEngine
from quant.kernels.selection import default_engine, self_test
from quant.quantizers.activation import ActivationParameters

ENGINES: list[Engine] = [OneDNNEngine(), ReferenceEngine()]
engines = pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)


def _operands(
    rng: np.random.Generator, shape: tuple[int, ...], zero_point: int, bias: bool, dtype: torch.dtype = torch.float32
) -> Operands:
    codes = torch.from_numpy(rng.integers(-127, 128, shape).astype(np.int8))
    scale = torch.from_numpy((rng.random(shape[0]) + 0.01).astype(np.float32))
    offset = torch.from_numpy(rng.normal(size=shape[0]).astype(np.float32)) if bias else None
    return Operands(codes, scale, offset, ActivationParameters(0.013, zero_point), dtype)


def _convolved(x: NDArray[np.float64], operands: Operands, window: Window) -> NDArray[np.float64]:
    """The definition of a convolution, by scipy, group by group, then strided."""
    codes = operands.codes.double().numpy()
    (py, px), (dy, dx), (sy, sx) = window.padding, window.dilation, window.stride
    x = np.pad(x - operands.activation.zero_point, ((0, 0), (0, 0), (py, py), (px, px)))
    kernel = np.zeros((*codes.shape[:2], (codes.shape[2] - 1) * dy + 1, (codes.shape[3] - 1) * dx + 1))
    kernel[:, :, ::dy, ::dx] = codes
    width, per_group = codes.shape[1], codes.shape[0] // window.groups
    out = []
    for n in range(codes.shape[0]):
        first = n // per_group * width
        out.append(
            [correlate(image[first : first + width], kernel[n], mode="valid", method="direct")[0] for image in x]
        )
    sums = np.stack(out, axis=1)[:, :, ::sy, ::sx]
    scaled = sums * (operands.weight_scale.double().numpy() * operands.activation.scale)[:, None, None]
    return scaled if operands.bias is None else scaled + operands.bias.double().numpy()[:, None, None]


def _close(got: torch.Tensor, wanted: NDArray[np.float64], relative: float = 2e-6) -> None:
    worst = np.abs(got.double().numpy() - wanted).max(initial=0.0)
    assert worst <= relative * max(np.abs(wanted).max(initial=0.0), 1.0)


@engines
@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 9), inputs=st.integers(1, 70), outputs=st.integers(1, 40),
    zero_point=st.integers(0, 255), bias=st.booleans(), seed=st.integers(0, 2**16),
)  # fmt: skip
def test_linear_is_exact(
    engine: Engine, rows: int, inputs: int, outputs: int, zero_point: int, bias: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    operands = _operands(rng, (outputs, inputs), zero_point, bias)
    x = rng.integers(0, 256, (2, rows, inputs))
    sums = (x.astype(np.float64) - zero_point) @ operands.codes.double().numpy().T
    wanted = sums * (operands.weight_scale.double().numpy() * operands.activation.scale)
    if operands.bias is not None:
        wanted = wanted + operands.bias.double().numpy()
    got = engine.linear(operands)(torch.from_numpy(x.astype(np.uint8)))
    assert got.shape == (2, rows, outputs)
    _close(got, wanted)


@engines
@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)), kernel=st.sampled_from([1, 3]),
    stride=st.sampled_from([1, 2]), padding=st.integers(0, 2), dilation=st.sampled_from([1, 2]),
    groups=st.sampled_from([1, 2]), channels=st.integers(1, 7), outputs=st.integers(1, 6),
    zero_point=st.integers(0, 255), bias=st.booleans(), seed=st.integers(0, 2**16),
)  # fmt: skip
def test_convolution_is_exact(
    engine: Engine, size: tuple[int, int], kernel: int, stride: int, padding: int, dilation: int, groups: int,
    channels: int, outputs: int, zero_point: int, bias: bool, seed: int,
) -> None:  # fmt: skip
    reach = (kernel - 1) * dilation + 1
    if min(size) + 2 * padding < reach:
        size = (reach, reach)
    rng = np.random.default_rng(seed)
    operands = _operands(rng, (outputs * groups, channels, kernel, kernel), zero_point, bias)
    window = Window((stride, stride), (padding, padding), (dilation, dilation), groups)
    x = rng.integers(0, 256, (2, channels * groups, *size))
    got = engine.conv2d(operands, window)(torch.from_numpy(x.astype(np.uint8)))
    _close(got, _convolved(x.astype(np.float64), operands, window))


def test_one_kernel_serves_changing_sizes() -> None:
    operands = _operands(np.random.default_rng(0), (5, 3, 3, 3), 100, True)
    kernel = OneDNNEngine().conv2d(operands, Window(padding=(1, 1)))
    for side in (8, 5, 8):
        x = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8)
        _close(kernel(x), _convolved(x.double().numpy(), operands, Window(padding=(1, 1))))


def test_output_dtype_is_the_layers() -> None:
    operands = _operands(np.random.default_rng(0), (8, 16), 3, True, torch.bfloat16)
    assert OneDNNEngine().linear(operands)(torch.zeros(2, 16, dtype=torch.uint8)).dtype == torch.bfloat16


def test_self_test_catches_a_wrong_engine() -> None:
    class Wrong(ReferenceEngine):
        name = "wrong"

        def linear(self, operands: Operands):  # type: ignore[no-untyped-def]
            kernel = super().linear(operands)
            return lambda x: kernel(x) * 1.001

    with pytest.raises(KernelError, match="wrong"):
        self_test(Wrong())


def test_the_default_engine_passes_its_self_test() -> None:
    self_test(default_engine())
