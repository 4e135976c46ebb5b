"""The CUDA engine: on a GPU where there is one, else its kernels in Triton's interpreter, against exact arithmetic."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from benchmarks.cuda_step import LAYOUTS, SEED, arguments, quantized_unet
from benchmarks.shape import SHAPES
from quant.checkpoints.layout import quantized_layers
from quant.engine.engine import Engine, Operands, Window
from quant.engine.passes import TorchPasses
from quant.engine.reference import ReferenceEngine
from quant.engine.selection import self_test
from quant.quantizers.activation import ActivationParameters, ActivationTable

triton = pytest.importorskip("triton", reason="Triton is not installed: the kernels of the CUDA engine are not tested")

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # the interpreter's numpy

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
EXACT, TORCH = ReferenceEngine(), TorchPasses()

zero_points = st.one_of(st.sampled_from([0, 127, 255]), st.integers(0, 255))
seeds = st.integers(0, 2**16)
dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])
targets = st.builds(
    lambda bits, share, scale: ActivationParameters(scale, round(share * (2**bits - 1)), bits),
    st.integers(2, 8), st.floats(0, 1), st.floats(0.001, 0.5).map(lambda s: float(np.float32(s))),
)  # fmt: skip


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """The engine, its kernels interpreted where there is no GPU."""
    with pytest.MonkeyPatch.context() as patch:
        if DEVICE.type == "cpu":
            _interpret(patch)
        from quant.engine.triton.engine import TritonEngine

        yield TritonEngine()
    _forget()


def _forget() -> None:
    """The kernels are defined anew when they are imported again."""
    package = importlib.import_module("quant.engine.triton")
    for name in [name for name in sys.modules if name.startswith("quant.engine.triton.")]:
        del sys.modules[name]
        delattr(package, name.rpartition(".")[2])


def _interpret(patch: pytest.MonkeyPatch) -> None:
    """Kernels that are defined from now on are interpreted, and so is Triton's own library, which may have been
    imported for the compiler: diffusers imports it."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpretedFunction

    _forget()
    patch.setenv("TRITON_INTERPRET", "1")
    for name, function in list(vars(tl.standard).items()):
        if isinstance(function, triton.JITFunction):
            interpreted = InterpretedFunction(function.fn)
            patch.setattr(tl.standard, name, interpreted)
            if getattr(tl, name, None) is function:
                patch.setattr(tl, name, interpreted)


def _operands(
    rng: np.random.Generator, shape: tuple[int, ...], zero_point: int, bias: bool, top: int = 127
) -> Operands:
    def tensor(values: np.ndarray, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.from_numpy(values).to(device=DEVICE, dtype=dtype)

    rows = (ActivationParameters(0.013, zero_point), ActivationParameters(0.02, 255 - zero_point))
    return Operands(
        tensor(rng.integers(-top, top + 1, shape), torch.int8),
        tensor(rng.random(shape[0]) * 0.01 + 1e-4),
        tensor(rng.normal(size=shape[0])) if bias else None,
        ActivationTable(rows),
    )


def _codes(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.integers(0, 256, shape).astype(np.uint8)).to(DEVICE)


def _residual(rng: np.random.Generator, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(rng.normal(size=tuple(shape))).to(device=DEVICE, dtype=dtype)


def _assert_near(got: Tensor, exact: Tensor, dtype: torch.dtype) -> None:
    """Float32 arithmetic on exact sums, then one rounding to `dtype`."""
    assert got.dtype == dtype and got.shape == exact.shape
    if exact.numel():
        allowed = exact.abs() * torch.finfo(dtype).eps + 1e-6 * exact.abs().max().clamp_min(1.0)
        assert bool(((got.double() - exact).abs() <= allowed).all())


def _assert_codes(got: Tensor, wanted: Tensor) -> None:
    """Equal but for values at the edge between two codes, where the device's exponential decides."""
    assert got.dtype == wanted.dtype and got.shape == wanted.shape
    apart = (got.int() - wanted.int()).abs()
    assert apart.max().item() <= 1 if apart.numel() else True
    assert (apart > 0).sum().item() <= 1 + got.numel() // 200


def test_the_engine_passes_the_self_test(engine: Engine) -> None:
    self_test(engine, DEVICE)


@settings(max_examples=120, deadline=None)
@given(
    leading=st.lists(st.integers(0, 9), max_size=3), inputs=st.integers(1, 150), outputs=st.integers(1, 70),
    zero_point=zero_points, group=st.integers(0, 1), bias=st.booleans(), residual=st.booleans(),
    packed=st.booleans(), dtype=dtypes, seed=seeds,
)  # fmt: skip
def test_linear(
    engine: Engine, leading: list[int], inputs: int, outputs: int, zero_point: int, group: int, bias: bool,
    residual: bool, packed: bool, dtype: torch.dtype, seed: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    operands = _operands(rng, (outputs, inputs), zero_point, bias, 7 if packed else 127)
    codes = _codes(rng, *leading, inputs)
    exact = EXACT.linear(operands)(codes, group, torch.float64)
    added = _residual(rng, exact.shape, dtype) if residual else None
    kernel = engine.linear(operands, packed)
    wanted = exact if added is None else exact + added.double()
    _assert_near(kernel(codes, group, dtype, None if added is None else added.clone()), wanted, dtype)
    assert torch.equal(kernel.codes(), operands.codes)


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(0, 40), inputs=st.integers(1, 90), outputs=st.integers(1, 40), bias=st.booleans(),
    packed=st.booleans(), dtype=dtypes, seed=seeds,
)  # fmt: skip
def test_linear_with_a_scale_per_token(
    engine: Engine, tokens: int, inputs: int, outputs: int, bias: bool, packed: bool, dtype: torch.dtype, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    operands = _operands(rng, (outputs, inputs), 0, bias, 7 if packed else 127)
    codes = (_codes(rng, 2, tokens, inputs).int() - 128).clamp_min(-127).to(torch.int8)
    scale = torch.from_numpy(rng.random((2, tokens)) * 0.02).float().to(DEVICE)
    wanted = EXACT.linear(operands).per_token(codes, scale, torch.float64)
    _assert_near(engine.linear(operands, packed).per_token(codes, scale, dtype), wanted, dtype)


def test_many_tiles_of_a_product(engine: Engine) -> None:
    rng = np.random.default_rng(0)
    operands = _operands(rng, (140, 33), 99, True)
    codes = _codes(rng, 1300, 33)  # more than eight tiles down, so more than one band, the last one short
    _assert_near(
        engine.linear(operands)(codes, 0, torch.float32),
        EXACT.linear(operands)(codes, 0, torch.float64),
        torch.float32,
    )


@pytest.mark.parametrize("depth", [32, 64, 128])
@pytest.mark.parametrize("shape", [(128, 128), (128, 64), (64, 64), (64, 32), (32, 32), (16, 32), (16, 16)])
def test_every_tile(engine: Engine, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], depth: int) -> None:
    from quant.engine.triton import product
    from quant.engine.triton.tile import tile_of

    monkeypatch.setattr(product, "choose", lambda *_: tile_of(*shape, depth))
    rng = np.random.default_rng(0)
    operands, flat = _operands(rng, (70, 200), 99, True), _codes(rng, 130, 200)
    got = engine.linear(operands)(flat, 0, torch.float32)
    _assert_near(got, EXACT.linear(operands)(flat, 0, torch.float64), torch.float32)
    operands, image = _operands(rng, (20, 40, 3, 3), 99, True), _codes(rng, 1, 80, 7, 7)
    got = engine.conv2d(operands, Window(groups=2))(image, 0, torch.float32)
    _assert_near(got, EXACT.conv2d(operands, Window(groups=2))(image, 0, torch.float64), torch.float32)


def test_codes_of_a_view_are_read_in_their_order(engine: Engine) -> None:
    rng = np.random.default_rng(0)
    operands = _operands(rng, (8, 12), 3, True)
    codes = _codes(rng, 2, 12, 5, 6).permute(0, 2, 3, 1)
    got = engine.linear(operands)(codes, 0, torch.float32)
    _assert_near(got, EXACT.linear(operands)(codes, 0, torch.float64), torch.float32)


@settings(max_examples=150, deadline=None)
@given(
    batch=st.integers(0, 2), size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)), stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)), frame=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    groups=st.integers(1, 3), channels=st.integers(1, 70), outputs=st.integers(1, 20), zero_point=zero_points,
    group=st.integers(0, 1), bias=st.booleans(), residual=st.booleans(), packed=st.booleans(), last=st.booleans(),
    dtype=dtypes, seed=seeds,
)  # fmt: skip
def test_convolution(
    engine: Engine, batch: int, size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int],
    dilation: tuple[int, int], frame: tuple[int, int], groups: int, channels: int, outputs: int, zero_point: int,
    group: int, bias: bool, residual: bool, packed: bool, last: bool, dtype: torch.dtype, seed: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    operands = _operands(rng, (outputs * groups, channels, *kernel), zero_point, bias, 7 if packed else 127)
    window = Window(stride, frame, dilation, groups)
    reach = ((kernel[0] - 1) * dilation[0] + 1, (kernel[1] - 1) * dilation[1] + 1)
    framed = [max(side + 2 * border, least) for side, border, least in zip(size, frame, reach, strict=True)]
    codes = _codes(rng, batch, channels * groups, *framed)
    codes = codes.contiguous(memory_format=torch.channels_last) if last else codes
    exact = EXACT.conv2d(operands, window)(codes, group, torch.float64)
    added = _residual(rng, exact.shape, dtype) if residual else None
    layer = engine.conv2d(operands, window, packed)
    got = layer(codes, group, dtype, None if added is None else added.clone())
    assert got.is_contiguous(memory_format=torch.channels_last)
    _assert_near(got, exact if added is None else exact + added.double(), dtype)
    assert torch.equal(layer.codes(), operands.codes)


@pytest.mark.parametrize(("packed", "wanted"), [(False, 9 * 25), (True, 113)])
def test_memory_of_a_weight(engine: Engine, packed: bool, wanted: int) -> None:
    rng = np.random.default_rng(0)
    linear = engine.linear(_operands(rng, (25, 9), 0, False, 7), packed)
    conv = engine.conv2d(_operands(rng, (25, 1, 3, 3), 0, False, 7), Window(), packed)
    assert linear.resident_bytes() == conv.resident_bytes() == wanted


@settings(max_examples=60, deadline=None)
@given(shape=st.lists(st.integers(0, 40), min_size=1, max_size=3), to=targets, dtype=dtypes, seed=seeds)
def test_quantize(engine: Engine, shape: list[int], to: ActivationParameters, dtype: torch.dtype, seed: int) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device=DEVICE, dtype=dtype)
    assert torch.equal(engine.passes.quantize(x, to), TORCH.quantize(x, to))


def test_quantize_rounds_half_to_even_and_clips_what_is_not_finite(engine: Engine) -> None:
    to = ActivationParameters(0.5, 3, 4)
    x = torch.tensor([0.25, 0.75, 1.25, -0.25, -0.75, float("nan"), float("inf"), -float("inf"), 3e38, -3e38])
    wanted = torch.tensor([3, 5, 5, 3, 1, 3, 15, 0, 15, 0], dtype=torch.uint8)
    assert torch.equal(engine.passes.quantize(x.to(DEVICE), to).cpu(), wanted)
    image = engine.passes.quantize_image(x.view(1, 5, 2, 1).to(DEVICE), to).cpu()
    assert torch.equal(image, wanted.view(1, 5, 2, 1))


@settings(max_examples=80, deadline=None)
@given(
    batch=st.integers(0, 2), channels=st.integers(1, 90), height=st.integers(1, 9), width=st.integers(1, 9),
    frame=st.tuples(st.integers(0, 2), st.integers(0, 2)), layout=st.sampled_from(["first", "last", "part"]),
    to=targets, dtype=dtypes, seed=seeds,
)  # fmt: skip
def test_quantize_image(
    engine: Engine, batch: int, channels: int, height: int, width: int, frame: tuple[int, int], layout: str,
    to: ActivationParameters, dtype: torch.dtype, seed: int,
) -> None:  # fmt: skip
    x = torch.randn(batch, channels + 3, height, width, generator=torch.Generator().manual_seed(seed))
    x = x.to(device=DEVICE, dtype=dtype)
    x = x if layout == "first" else x.contiguous(memory_format=torch.channels_last)
    x = x[:, 3:] if layout == "part" else x
    got, wanted = engine.passes.quantize_image(x, to, frame), TORCH.quantize_image(x, to, frame)
    assert torch.equal(got, wanted)
    assert got.is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
@settings(max_examples=80, deadline=None)
@given(
    batch=st.integers(0, 2), groups=st.integers(1, 4), size=st.integers(1, 40), height=st.integers(1, 17),
    width=st.integers(1, 17), offset=st.sampled_from([0.0, 30.0]), silu=st.booleans(), shifted=st.booleans(),
    frame=st.tuples(st.integers(0, 2), st.integers(0, 2)), to=targets, dtype=dtypes, seed=seeds,
)  # fmt: skip
def test_group_norm(
    engine: Engine, batch: int, groups: int, size: int, height: int, width: int, offset: float, silu: bool,
    shifted: bool, frame: tuple[int, int], to: ActivationParameters, dtype: torch.dtype, seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    norm = _drawn(nn.GroupNorm(groups, groups * size))
    x = (torch.randn(batch, groups * size, height, width) + offset).to(device=DEVICE, dtype=dtype)
    shift = torch.randn(batch, groups * size).to(device=DEVICE, dtype=dtype) if shifted else None
    got = engine.passes.group_norm(x, norm, to, silu=silu, shift=shift, frame=frame)
    _assert_codes(got, TORCH.group_norm(x, norm, to, silu=silu, shift=shift, frame=frame))


@torch.no_grad()
@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(0, 30), width=st.integers(1, 90), bias=st.booleans(), to=targets, dtype=dtypes, seed=seeds
)  # fmt: skip
def test_layer_norm(
    engine: Engine, tokens: int, width: int, bias: bool, to: ActivationParameters, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    norm = _drawn(nn.LayerNorm(width, bias=bias))
    x = (torch.randn(2, tokens, width) + 3).to(device=DEVICE, dtype=dtype)
    _assert_codes(engine.passes.layer_norm(x, norm, to), TORCH.layer_norm(x, norm, to))


@settings(max_examples=40, deadline=None)
@given(tokens=st.integers(0, 30), width=st.integers(1, 90), to=targets, dtype=dtypes, seed=seeds)
def test_geglu(
    engine: Engine, tokens: int, width: int, to: ActivationParameters, dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, tokens, 2 * width, generator=generator).mul(2).to(device=DEVICE, dtype=dtype)
    _assert_codes(engine.passes.geglu(x, to), TORCH.geglu(x, to))


@settings(max_examples=40, deadline=None)
@given(tokens=st.integers(0, 30), width=st.integers(1, 90), dtype=dtypes, seed=seeds)
def test_quantize_per_token(engine: Engine, tokens: int, width: int, dtype: torch.dtype, seed: int) -> None:
    x = torch.randn(2, tokens, width, generator=torch.Generator().manual_seed(seed)).to(device=DEVICE, dtype=dtype)
    codes, scale = engine.passes.quantize_per_token(x)
    wanted, wanted_scale = TORCH.quantize_per_token(x)
    _assert_codes(codes, wanted)
    torch.testing.assert_close(scale, wanted_scale, rtol=1e-6, atol=0)


def test_a_token_that_is_not_finite_keeps_its_scale(engine: Engine) -> None:
    x = torch.tensor([[1.0, float("inf"), -float("inf"), float("nan"), -0.5], [0.0, 0.0, 0.0, 0.0, 0.0]], device=DEVICE)
    codes, scale = engine.passes.quantize_per_token(x)
    assert codes.tolist() == [[127, 127, -127, 0, -64], [0, 0, 0, 0, 0]]
    assert scale.tolist() == pytest.approx([1 / 127, 1e-8])


@settings(max_examples=10, deadline=None)
@given(length=st.integers(1, 20), context=st.integers(1, 20), to=targets, dtype=dtypes, seed=seeds)
def test_attention(
    engine: Engine, length: int, context: int, to: ActivationParameters, dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (
        torch.randn(2, n, 3, 8, generator=generator).to(device=DEVICE, dtype=dtype) for n in (length, context, context)
    )
    got = engine.passes.attention(query, key, value, 0.35, to)
    assert torch.equal(got, TORCH.attention(query, key, value, 0.35, to))


def _drawn(norm: nn.Module) -> nn.Module:
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm.to(DEVICE)


@settings(max_examples=200, deadline=None)
@given(
    rows=st.integers(1, 2**17), columns=st.integers(1, 2**14), depth=st.integers(1, 2**14), groups=st.integers(1, 64),
    multiprocessors=st.integers(1, 160),
)  # fmt: skip
def test_tiles_fit_every_gpu(rows: int, columns: int, depth: int, groups: int, multiprocessors: int) -> None:
    from quant.engine.triton.tile import choose

    tile = choose(rows, columns, depth, groups, multiprocessors)
    for side in (tile.rows, tile.columns, tile.depth):
        assert side >= 16 and side & (side - 1) == 0
    assert tile.depth >= 32  # what one int8 instruction of a tensor core sums
    assert tile.stages * tile.depth * (tile.rows + tile.columns) <= 99 * 1024  # shared memory of the smallest GPUs


@pytest.mark.slow
@torch.no_grad()
def test_a_whole_unet(engine: Engine) -> None:
    shape = replace(SHAPES["tiny"], side=4)
    given = {name: tensor.float() for name, tensor in arguments(shape, 2, SEED, DEVICE).items()}
    outputs = []
    for each in (EXACT, engine):
        unet = quantized_unet(shape, LAYOUTS["w4a8-packed"], DEVICE).float()
        for layer in quantized_layers(unet).values():
            layer.engine = each
        outputs.append(unet(**given, return_dict=False)[0].double())
    assert float((outputs[1] - outputs[0]).norm() / outputs[0].norm()) < 0.01  # codes at an edge may differ


SELECT = """
import sys
sys.modules["triton"] = None  # importing it raises ImportError
from quant.engine.selection import select
selection = select("cuda")
sys.stdout.write(selection.engine.name + "\\n" + "\\n".join(selection.reasons))
"""


def test_without_triton_the_reason_is_given() -> None:
    done = subprocess.run([sys.executable, "-c", SELECT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("reference\n")
    assert "Triton is not installed" in done.stdout
