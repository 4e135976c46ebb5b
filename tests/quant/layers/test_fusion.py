"""Fused blocks against the same blocks unfused, over every option of the layout, in a whole UNet."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from contract.recipe import CalibrationRun, Recipe
from quant.calibration.calibrate import calibrate
from quant.calibration.journal import Journal
from quant.calibration.run import Run
from quant.checkpoints.conversion import dequantize
from quant.checkpoints.layout import products, quantized_layers
from quant.engine.reference import ReferenceEngine
from quant.layers.fusion import fuse, unfuse
from quant.layers.fusion.resample import FusedUpsample2D
from quant.layers.fusion.resnet import FusedResnetBlock2D
from quant.layers.fusion.transformer import FusedTransformer2DModel, FusedTransformerBlock
from quant.layers.shortcut import SplitConv2d
from quant.methods import minmax
from quant.quantizers.activation import FLOAT_BITS
from quant.sampling.request import Sampling
from tests.support.tiny_model import build_tiny_pipeline
from tests.support.tiny_world import KEPT

OPTIONS = {
    "plain": {},
    "4-bit weights": {"weight_bits": 4, "activation_bits": 6},
    "packed": {"weight_bits": 4, "packed": True},
    "mixed": {"weight_bits": 4, "layer_bits": {"*.conv1": 8, "*.to_q": 6}},
    "tables": {"timestep_groups": 3},
    "split": {"split_shortcuts": True, "timestep_groups": 2},
    "dynamic": {"dynamic_activations": True},
    "attention": {"attention_bits": 8, "timestep_groups": 2},
    "attention, wide softmax": {"attention_bits": 8, "softmax_bits": 16},
    "some in float": {"keep_float": (*KEPT, "*.conv2", "*.to_k", "*.proj_in")},
}
TIMESTEPS = (900, 450, 30)
FUSED = (FusedResnetBlock2D, FusedTransformerBlock, FusedTransformer2DModel, FusedUpsample2D)


def _inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, 4, 32, 32, generator=generator).to(dtype), torch.randn(2, 16, 32, generator=generator).to(
        dtype
    )


def _quantize(pipeline: StableDiffusionPipeline, recipe: Recipe, *prompts: str) -> None:
    steps = recipe.calibration.num_inference_steps
    inputs = Run(prompts, Sampling("", num_inference_steps=steps, width=64, height=64))
    calibrate(pipeline, recipe, recipe.complete(minmax.STAGES), inputs, Journal(None), lambda *_: None)


SLOW = ("dynamic",)


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in OPTIONS],
    ids=lambda name: name.replace(" ", "-"),
)
def denoiser(request: pytest.FixtureRequest) -> UNet2DConditionModel:
    pipeline = build_tiny_pipeline()
    for module in pipeline.unet.modules():  # an untrained model's norms are trivial
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            nn.init.normal_(module.weight, 1.0, 0.3)
            nn.init.normal_(module.bias, 0.0, 0.3)
    options = {"keep_float": KEPT, **OPTIONS[request.param]}
    inputs = CalibrationRun(num_prompts=2, num_inference_steps=4, guidance_scale=3.0)
    _quantize(pipeline, Recipe(method="minmax", calibration=inputs, **options), "a box", "two")
    return pipeline.unet.eval().requires_grad_(False)


def _run(denoiser: nn.Module, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    x, context = _inputs(dtype)
    return [denoiser(x, timestep, context).sample for timestep in TIMESTEPS]


def _relative(got: list[Tensor], wanted: list[Tensor]) -> float:
    return max(((a.float() - b.float()).norm() / b.float().norm()).item() for a, b in zip(got, wanted, strict=True))


def _seen(denoiser: nn.Module) -> dict[str, tuple[tuple[Any, ...], dict[str, Any], Tensor]]:
    """Arguments and output of every block that can be fused, during one run."""
    seen = {}
    for name, module in denoiser.named_modules():
        if type(module) in {kind.__base__ for kind in FUSED}:

            def remember(_: nn.Module, args: Any, kwargs: Any, out: Any, name: str = name) -> None:
                seen[name] = (args, kwargs, _tensor(out).clone())

            module.register_forward_hook(remember, with_kwargs=True)
    x, context = _inputs()
    denoiser(x, TIMESTEPS[1], context)
    return seen


def _tensor(out: Any) -> Tensor:
    return out if isinstance(out, Tensor) else out[0]


def test_every_block_equals_the_exact_engine_run_layer_by_layer(denoiser: UNet2DConditionModel) -> None:
    plain = copy.deepcopy(denoiser)
    unfuse(plain)
    exact = copy.deepcopy(plain)
    for layer in quantized_layers(exact).values():
        layer.engine = ReferenceEngine()
    seen = _seen(exact)
    _run(denoiser)  # whatever kernels keep from one timestep must not reach the next
    x, context = _inputs()
    denoiser(x, TIMESTEPS[1], context)
    plain(x, TIMESTEPS[1], context)
    assert len(seen) > 10
    for name, (args, kwargs, wanted) in seen.items():
        # A code at a tie may go either way; native attention multiplies in bfloat16 unless it multiplies integers.
        block = denoiser.get_submodule(name)
        attends = any(isinstance(module, Attention) for module in block.modules()) and not products(block)
        kept = [a.clone() if isinstance(a, Tensor) else a for a in args]
        for model, tolerance in ((denoiser, 0.03 if attends else 0.005), (plain, 0.005)):
            got = _tensor(model.get_submodule(name)(*args, **kwargs))
            assert ((got - wanted).norm() / wanted.norm()).item() < tolerance, (name, type(model))
        assert all(torch.equal(a, b) for a, b in zip(args, kept, strict=True) if isinstance(a, Tensor)), name


def test_the_whole_is_as_near_to_floating_point_as_the_exact_engine(denoiser: UNet2DConditionModel) -> None:
    exact = copy.deepcopy(denoiser)
    unfuse(exact)
    for layer in quantized_layers(exact).values():
        layer.engine = ReferenceEngine()
    wanted = _run(dequantize(copy.deepcopy(denoiser)))
    noise = _relative(_run(exact), wanted)
    assert _relative(_run(denoiser), wanted) < 1.2 * noise
    low = copy.deepcopy(denoiser)
    for tensor in low.parameters():
        tensor.data = tensor.data.bfloat16()
    out = _run(low, torch.bfloat16)
    assert out[0].dtype == torch.bfloat16
    assert _relative(out, wanted) < 1.3 * noise


def test_dequantizing_gives_the_original_graph_back(denoiser: UNet2DConditionModel) -> None:
    plain = dequantize(copy.deepcopy(denoiser))
    assert not quantized_layers(plain) and not products(plain)
    assert not any(isinstance(module, SplitConv2d) for module in plain.modules())
    assert plain.state_dict().keys() == build_tiny_pipeline().unet.state_dict().keys()
    assert all(out.isfinite().all() for out in _run(plain))


def test_all_kinds_of_blocks_are_fused_and_names_stay() -> None:
    pipeline = build_tiny_pipeline()
    before = pipeline.unet.state_dict().keys()
    inputs = CalibrationRun(num_prompts=1, num_inference_steps=2)
    _quantize(pipeline, Recipe(method="minmax", keep_float=KEPT, calibration=inputs), "a box")
    kinds = [type(module) for module in pipeline.unet.modules()]
    for kind in FUSED:
        assert kind in kinds and kind.__base__ not in kinds
    assert before <= pipeline.unet.state_dict().keys()
    unfuse(pipeline.unet)
    assert FusedResnetBlock2D not in {type(module) for module in pipeline.unet.modules()}
    fuse(pipeline.unet)


def test_masks_and_float_steps_fall_back_to_the_original_forward() -> None:
    pipeline = build_tiny_pipeline()
    inputs = CalibrationRun(num_prompts=1, num_inference_steps=2)
    recipe = Recipe(method="minmax", keep_float=KEPT, calibration=inputs, timestep_groups=2)
    _quantize(pipeline, recipe, "a box")
    unet, (x, context) = pipeline.unet.eval(), _inputs()
    groups = next(iter(quantized_layers(unet).values())).timesteps
    with torch.no_grad():
        mask = torch.ones(2, 16)
        mask[:, 5:] = 0
        shorter = unet(x, 500, context[:, :5]).sample
        masked = unet(x, 500, context, encoder_attention_mask=mask).sample
        assert ((masked - shorter).norm() / shorter.norm()).item() < 0.06
        for layer in quantized_layers(unet).values():
            layer.input_bits[1] = FLOAT_BITS
            layer._apply(lambda tensor: tensor)  # the table is read anew
        low = groups.timesteps[1]
        wanted = dequantize(copy.deepcopy(unet))(x, low, context).sample
        torch.testing.assert_close(unet(x, low, context).sample, wanted, rtol=1e-3, atol=1e-4)
