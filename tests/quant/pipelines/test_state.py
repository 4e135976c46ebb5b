"""State dicts, counts, copies, pickles and moves, before the first call and after it."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionImg2ImgPipeline, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn

from quant.checkpoints.conversion import dequantize
from quant.checkpoints.layout import quantized_layers
from quant.checkpoints.pipelines import resident_bytes
from quant.layers.layer import QuantizedLayer
from tests.quant.pipelines.conftest import RECIPES, Make, denoise, distance, draw
from tests.support.tiny_world import TinyWorld
from tests.support.toy_model import build_toy_pipeline


@torch.no_grad()
def _out(unet: nn.Module) -> Tensor:
    return denoise(unet)


def _other(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state of the same kinds and other values."""
    moved = {
        name
        for name, tensor in state.items()
        if name.endswith(("weight_scale", "table")) or (tensor.ndim == 4 and tensor.is_floating_point())
    }
    return {name: tensor * 1.25 if name in moved else tensor.clone() for name, tensor in state.items()}


@pytest.mark.parametrize("strict", [True, False])
def test_a_state_taken_before_the_first_call_loads_after_it_and_acts(
    variant: StableDiffusionPipeline, strict: bool
) -> None:
    unet = variant.unet
    first = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    before = _out(unet)
    assert unet.state_dict().keys() == first.keys()
    other = _other(first)
    result = unet.load_state_dict(other, strict=strict)
    assert not result.missing_keys and not result.unexpected_keys
    changed = _out(unet)
    assert distance(changed, before) > 0.01
    unet.load_state_dict(first, strict=strict)
    assert torch.equal(_out(unet), before)
    unet.load_state_dict(other, assign=True)
    assert torch.equal(_out(unet), changed)


def test_codes_of_another_model_act(make: Make) -> None:
    unet, other = make().unet, make().unet
    for layer in quantized_layers(other).values():
        layer.weight = layer.weight.flip(0).contiguous()
    wanted = _out(other)
    _out(unet)
    unet.load_state_dict(other.state_dict())
    assert torch.equal(_out(unet), wanted)


def test_the_class_is_diffusers_own(make: Make, tmp_path: Path) -> None:
    unet = make().unet
    assert type(unet) is UNet2DConditionModel
    unet.save_config(tmp_path)
    assert '"_class_name": "UNet2DConditionModel"' in (tmp_path / "config.json").read_text()
    again = copy.copy(unet)
    assert type(again) is type(unet) and again.num_parameters() == unet.num_parameters()


def test_one_layer_takes_its_tensors(make: Make) -> None:
    unet = make().unet
    before = _out(unet)
    layer = unet.mid_block.resnets[0].conv1
    state = layer.state_dict()
    layer.load_state_dict(state | {"weight_scale": state["weight_scale"] * 3})
    assert distance(_out(unet), before) > 0.01


@pytest.mark.parametrize(
    ("name", "value"), [("input_scale", 0.0), ("weight_scale", -1.0), ("input_zero_point", 999), ("input_bits", 1)]
)
def test_values_that_make_no_sense_are_refused_when_loaded(make: Make, name: str, value: float) -> None:
    unet = make().unet
    _out(unet)
    state = unet.state_dict()
    state[f"mid_block.resnets.0.conv1.{name}"] = torch.full_like(state[f"mid_block.resnets.0.conv1.{name}"], value)
    with pytest.raises(RuntimeError, match=rf"mid_block\.resnets\.0\.conv1: .*{name}"):
        unet.load_state_dict(state)


def test_tensors_that_are_missing_or_of_another_shape_are_named(make: Make) -> None:
    unet = make().unet
    _out(unet)
    state = unet.state_dict()
    state.pop("mid_block.resnets.0.conv1.weight")
    with pytest.raises(RuntimeError, match=r"Missing key.*mid_block\.resnets\.0\.conv1\.weight"):
        unet.load_state_dict(state)


@pytest.mark.parametrize("name", ["w8a8", "packed", "tables", "attention", "dynamic", "mixed"])
def test_parameters_are_counted_as_of_the_float_model(make: Make, name: str) -> None:
    unet, wanted = make(name).unet, build_toy_pipeline(trained=False).unet.num_parameters()
    for _ in range(2):
        assert unet.num_parameters() == wanted
        assert unet.num_parameters(exclude_embeddings=True) == wanted
        assert unet.num_parameters(only_trainable=True) == 0
        _out(unet)
    unet.requires_grad_(True)
    assert 0 < unet.num_parameters(only_trainable=True) < wanted / 2
    assert copy.deepcopy(unet).num_parameters() == wanted
    plain = dequantize(copy.deepcopy(unet))
    assert plain.num_parameters() == wanted and type(plain) is UNet2DConditionModel


def test_the_footprint_is_one_and_that_of_the_tensors(variant: StableDiffusionPipeline) -> None:
    unet = variant.unet
    stored = sum(tensor.nbytes for tensor in unet.state_dict().values())
    sizes = {unet.get_memory_footprint()}
    parameters = {unet.get_memory_footprint(return_buffers=False)}
    _out(unet)
    sizes |= {unet.get_memory_footprint(), copy.deepcopy(unet).get_memory_footprint()}
    parameters |= {unet.get_memory_footprint(return_buffers=False)}
    assert sizes == {stored} and len(parameters) == 1 and parameters.pop() <= stored
    floats = build_toy_pipeline(trained=False).unet
    assert stored < 0.9 * floats.get_memory_footprint()


def test_counts_of_what_was_loaded_and_of_what_is_quantized_while_loading(tiny: TinyWorld) -> None:
    from diffusers import PipelineQuantizationConfig

    from quant.checkpoints.backend import FacsimileConfig

    reference = UNet2DConditionModel.from_pretrained(tiny.description.source, subfolder="unet")
    for bits in (8, 4):
        loaded = UNet2DConditionModel.from_pretrained(tiny.folder(bits), subfolder="unet")
        assert loaded.num_parameters() == reference.num_parameters()
        assert loaded.get_memory_footprint() < reference.get_memory_footprint() / 2
    config = FacsimileConfig(weight_bits=8, dynamic_activations=True)
    dynamic = DiffusionPipeline.from_pretrained(
        tiny.description.source, quantization_config=PipelineQuantizationConfig(quant_mapping={"unet": config})
    ).unet
    assert dynamic.num_parameters() == reference.num_parameters()


def test_merging_projections_is_accepted_and_changes_nothing(variant: StableDiffusionPipeline) -> None:
    before = draw(variant)
    variant.fuse_qkv_projections()
    assert torch.equal(draw(variant), before)
    variant.unfuse_qkv_projections()
    assert torch.equal(draw(variant), before)
    for call in (variant.unet.fuse_qkv_projections, variant.unet.unfuse_qkv_projections):
        call()
    attention = variant.unet.mid_block.attentions[0].transformer_blocks[0].attn1
    attention.fuse_projections()
    assert torch.equal(draw(variant), before)


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("name", RECIPES)
def test_copies_and_pickles_draw_the_same_and_are_of_their_own(make: Make, name: str, used: bool) -> None:
    unet = make(name).unet
    before = _out(unet) if used else _out(copy.deepcopy(unet))
    file = io.BytesIO()
    torch.save(unet, file)
    file.seek(0)
    copies = [copy.deepcopy(unet), pickle.loads(pickle.dumps(unet)), torch.load(file, weights_only=False)]
    for copied in copies:
        assert torch.equal(_out(copied), before)
        assert copied.num_parameters() == unet.num_parameters()
        assert copied.to(torch.float32) is copied
        layer = next(iter(quantized_layers(copied).values()))
        layer.load_state_dict(layer.state_dict() | {"weight_scale": layer.weight_scale * 3})
        assert distance(_out(copied), before) > 1e-3
    assert torch.equal(_out(unet), before)


def test_a_denoiser_goes_when_nobody_has_it(make: Make) -> None:
    unet = make().unet
    _out(unet)
    gc.collect()
    gone = weakref.ref(unet)
    gc.disable()
    try:
        del unet
        assert gone() is None, "something refers to the denoiser in a circle"
    finally:
        gc.enable()


@pytest.mark.parametrize("cast", ["half", "bfloat16", "double"])
def test_casting_leaves_scales_and_tables_as_they_are(make: Make, cast: str) -> None:
    for name in RECIPES:
        unet = make(name).unet
        kept = {key: b.clone() for key, b in unet.named_buffers()}
        getattr(unet.mid_block, cast)()
        for key, buffer in unet.named_buffers():
            assert buffer.dtype == kept[key].dtype and torch.equal(buffer, kept[key])


def test_moving_to_the_own_dtype_is_no_change(tiny: TinyWorld) -> None:
    unet = UNet2DConditionModel.from_pretrained(tiny.folder(8), subfolder="unet")
    assert unet.to(torch.float32) is unet and unet.to("cpu", torch.float32) is unet
    assert unet.to(dtype=torch.float32) is unet and unet.to(device="cpu", dtype=torch.float32) is unet
    for change in (
        lambda: unet.to(torch.bfloat16), lambda: unet.to(dtype=torch.float16), lambda: unet.to("cpu", torch.float16),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="quantized"):
            change()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_from_pipe_of_a_loaded_variant(tiny: TinyWorld, dtype: torch.dtype) -> None:
    pipeline = DiffusionPipeline.from_pretrained(tiny.folder(8), dtype=dtype)
    other = StableDiffusionImg2ImgPipeline.from_pipe(pipeline, dtype=dtype)
    assert other.unet is pipeline.unet
    other.set_progress_bar_config(disable=True)
    image: Any = other(
        "a", image=torch.rand(1, 3, 64, 64), strength=0.6, num_inference_steps=2, output_type="np"
    ).images
    assert image.shape == (1, 64, 64, 3)


def test_a_pipeline_moves_and_keeps_its_bytes(variant: StableDiffusionPipeline) -> None:
    before = draw(variant)
    held = resident_bytes(variant)
    variant.to("cpu")
    assert torch.equal(draw(variant), before)
    assert resident_bytes(variant) == held
    layers = [module for module in variant.unet.modules() if isinstance(module, QuantizedLayer)]
    assert all(layer.kernel_bytes > 0 for layer in layers)
