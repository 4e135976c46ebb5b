"""Every dtype that a variant can be loaded in, on every engine of this processor."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from quant.checkpoints.layout import quantized_layers
from quant.engine.engine import Engine, Operands, Window
from quant.engine.onednn import Form, OneDNNEngine, missing_forms
from quant.engine.passes import TorchPasses
from quant.engine.reference import ReferenceEngine
from quant.engine.selection import default_engine, select
from quant.engine.self_test import ROUNDING, check_passes, self_test
from quant.errors import KernelError
from quant.quantizers.activation import ActivationParameters, ActivationTable
from tests.quant.pipelines.conftest import RECIPES, Make, denoise, distance

DTYPES = tuple(ROUNDING)
ALL = frozenset(Form(p, d, r) for p in ("linear", "convolution") for d in DTYPES[1:] for r in (False, True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", RECIPES)
def test_a_variant_in_every_dtype(make: Make, name: str, dtype: torch.dtype) -> None:
    unet = make(name).unet
    with torch.no_grad():
        wanted = denoise(unet)
        for tensor in unet.parameters():
            tensor.data = tensor.data.to(dtype)
        out = denoise(unet, dtype)
    assert out.dtype == dtype and distance(out, wanted) < 0.1


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_in_every_dtype(make: Make, dtype: torch.dtype) -> None:
    unet = make().unet
    for tensor in unet.parameters():
        tensor.data = tensor.data.to(dtype)
    unet.requires_grad_(True)
    denoise(unet, dtype).float().square().mean().backward()
    assert all(bool(p.grad.isfinite().all()) and p.grad.dtype == dtype for p in unet.parameters())


@pytest.mark.parametrize("widened", [None, frozenset(), ALL], ids=["as it is", "none", "all"])
def test_what_onednn_lacks_goes_through_float32(widened: frozenset[Form] | None) -> None:
    engine, exact = OneDNNEngine(TorchPasses(), widened), ReferenceEngine()
    generator = torch.Generator().manual_seed(1)
    table = ActivationTable((ActivationParameters(0.02, 100),))
    codes = torch.randint(-9, 10, (12, 8, 3, 3), generator=generator).to(torch.int8)  # nothing saturates
    conv = Operands(codes, torch.rand(12) + 0.5, torch.rand(12), table)
    flat = Operands(codes.flatten(1), torch.rand(12) + 0.5, torch.rand(12), table)
    image = torch.randint(0, 256, (2, 8, 5, 6), generator=generator).to(torch.uint8)
    tokens = torch.randint(0, 256, (4, 72), generator=generator).to(torch.uint8)
    for product, kernel, truth, given in (
        ("linear", engine.linear(flat), exact.linear(flat), tokens),
        ("convolution", engine.conv2d(conv, Window()), exact.conv2d(conv, Window()), image),
    ):
        wanted = truth(given, 0, torch.float32)
        for dtype in DTYPES:
            for residual in (None, torch.randn_like(wanted).to(dtype)):
                form = Form(product, dtype, residual is not None)
                if widened == frozenset() and form in missing_forms():
                    continue
                out = kernel(given, 0, dtype, None if residual is None else residual.clone())
                assert out.dtype == dtype
                full = wanted if residual is None else wanted + residual.float()
                assert (out.float() - full).abs().max() < 2 * ROUNDING[dtype] * full.abs().max()


def test_the_engine_of_this_machine_passes_in_every_dtype_and_says_what_is_slow() -> None:
    self_test(default_engine())
    reasons = " ".join(select().reasons)
    if isinstance(default_engine(), OneDNNEngine):
        assert all(str(form) in reasons for form in missing_forms())
        assert "float16" in reasons
    else:
        assert "slow" in reasons


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("residual", [False, True])
def test_the_self_test_finds_a_fault_in_one_dtype(dtype: torch.dtype, residual: bool) -> None:
    class Faulty(ReferenceEngine):
        name = "faulty"

        def linear(self, operands: Operands, packed: bool = False):  # type: ignore[no-untyped-def]
            right = super().linear(operands)

            def wrong(codes: torch.Tensor, group: int, kind: torch.dtype, added: torch.Tensor | None = None):  # type: ignore[no-untyped-def]
                out = right(codes, group, kind, added)
                return out * 1.05 if kind == dtype and (added is not None) == residual else out

            return wrong

    with pytest.raises(KernelError, match=f"faulty.*{str(dtype).removeprefix('torch.')}"):
        self_test(Faulty())


def test_passes_are_tried_in_every_dtype() -> None:
    check_passes(TorchPasses())
    check_passes(default_engine().passes)

    class Faulty(TorchPasses):
        def layer_norm(self, x: torch.Tensor, norm: nn.LayerNorm, to: ActivationParameters) -> torch.Tensor:
            return super().layer_norm(x if x.dtype != torch.float16 else x * 2.0 + 1.0, norm, to).flip(-1)

    with pytest.raises(KernelError, match="differ from plain torch"):
        check_passes(Faulty())


@pytest.mark.parametrize("engine", [OneDNNEngine(TorchPasses()), ReferenceEngine()], ids=["onednn", "reference"])
def test_every_engine_runs_a_whole_denoiser_in_every_dtype(make: Make, engine: Engine) -> None:
    """Right or not: without VNNI oneDNN's sums saturate, which the self-test of the selection finds."""
    unet = make("tables").unet
    for layer in quantized_layers(unet).values():
        layer.engine = engine
    for dtype in DTYPES:
        for tensor in unet.parameters():
            tensor.data = tensor.data.to(dtype)
        with torch.no_grad():
            out = denoise(unet, dtype)
        assert out.dtype == dtype and bool(out.isfinite().all())
