"""Attention processors, wrapped and replaced layers, and hooks: what is put into a fused block acts."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPAGPipeline, StableDiffusionPipeline, StableDiffusionSAGPipeline
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0, SlicedAttnProcessor
from torch import Tensor, nn

from quant.checkpoints.layout import quantized_layers
from quant.layers.fusion import unfuse
from quant.layers.fusion.parts import runs_fused
from quant.layers.fusion.resample import FusedUpsample2D
from quant.layers.fusion.resnet import FusedResnetBlock2D
from quant.layers.fusion.transformer import FusedTransformer2DModel, FusedTransformerBlock
from tests.quant.pipelines.conftest import RECIPES, Make, denoise, distance, draw

FUSED = (FusedResnetBlock2D, FusedTransformerBlock, FusedTransformer2DModel, FusedUpsample2D)
PLACES = {
    "resnet convolution": "down_blocks.0.resnets.0.conv1",
    "second convolution": "up_blocks.1.resnets.0.conv2",
    "resnet norm": "mid_block.resnets.0.norm2",
    "shortcut": "up_blocks.0.resnets.0.conv_shortcut",
    "time": "mid_block.resnets.0.time_emb_proj",
    "attention": "mid_block.attentions.0.transformer_blocks.0.attn2",
    "query": "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "attention output": "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0",
    "token norm": "mid_block.attentions.0.transformer_blocks.0.norm3",
    "feed-forward": "mid_block.attentions.0.transformer_blocks.0.ff",
    "activation": "mid_block.attentions.0.transformer_blocks.0.ff.net.0",
    "widening": "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
    "narrowing": "mid_block.attentions.0.transformer_blocks.0.ff.net.2",
    "projection": "mid_block.attentions.0.proj_in",
    "projection back": "mid_block.attentions.0.proj_out",
    "picture norm": "mid_block.attentions.0.norm",
    "upsampling": "up_blocks.0.upsamplers.0.conv",
    "downsampling": "down_blocks.0.downsamplers.0.conv",
}


class Zeros:
    """A processor whose attention says nothing."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, attn: Attention, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self.calls += 1
        return torch.zeros_like(hidden_states)


class Doubled(nn.Module):
    """A wrapper whose layer gives twice as much."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return 2.0 * self.module(*args, **kwargs)


@torch.no_grad()
def _out(unet: nn.Module) -> Tensor:
    return denoise(unet)


def test_a_processor_acts_and_goes(variant: StableDiffusionPipeline) -> None:
    unet, zeros = variant.unet, Zeros()
    own, before = unet.attn_processors, _out(unet)
    unet.set_attn_processor(zeros)
    acted = _out(unet)
    assert zeros.calls == len(own) and distance(acted, before) > 0.01
    unfused = _unfused(unet)
    assert torch.equal(acted, unfused) or distance(acted, unfused) < 0.02
    unet.set_attn_processor(own)
    assert torch.equal(_out(unet), before)


def _unfused(unet: nn.Module) -> Tensor:
    """The output of the same denoiser without fused blocks."""
    plain = copy.deepcopy(unet)
    unfuse(plain)
    return _out(plain)


@pytest.mark.parametrize("place", ["down_blocks.1", "mid_block", "up_blocks.0"])
def test_one_processor_of_one_block_acts(make: Make, place: str) -> None:
    unet, zeros = make().unet, Zeros()
    before = _out(unet)
    names = [name for name in unet.attn_processors if name.startswith(place)]
    unet.set_attn_processor({name: zeros if name in names else own for name, own in unet.attn_processors.items()})
    assert distance(_out(unet), before) > 0.001 and zeros.calls == len(names) > 0


@pytest.mark.parametrize("processor", [AttnProcessor(), AttnProcessor2_0(), SlicedAttnProcessor(1)])
def test_processors_that_compute_the_same_give_the_same(make: Make, processor: Any) -> None:
    unet = make().unet
    before = _out(unet)
    unet.set_attn_processor(processor)
    assert distance(_out(unet), before) < 0.02
    unet.set_default_attn_processor()
    assert distance(_out(unet), before) < 0.02


@pytest.mark.parametrize("name", RECIPES)
def test_perturbed_attention_guidance_acts(make: Make, name: str) -> None:
    pipeline = make(name)
    plain = draw(pipeline)
    guided = StableDiffusionPAGPipeline(
        **pipeline.components, pag_applied_layers=["mid"], requires_safety_checker=False
    )
    guided.set_progress_bar_config(disable=True)
    assert distance(draw(guided, pag_scale=0.0), plain) < 0.02
    assert distance(draw(guided, pag_scale=3.0), plain) > 0.01
    assert torch.equal(draw(pipeline), plain), "the processors are put back"


def test_self_attention_guidance_acts(make: Make) -> None:
    parts = make().components | {"image_encoder": None}
    guided = StableDiffusionSAGPipeline(**parts, requires_safety_checker=False)
    guided.set_progress_bar_config(disable=True)
    weak, strong = (draw(guided, sag_scale=scale) for scale in (0.0, 1.0))
    assert distance(strong, weak) > 0.01


@pytest.mark.parametrize("place", PLACES)
def test_a_wrapped_layer_acts(make: Make, place: str) -> None:
    unet = make().unet
    before = _out(unet)
    parent, _, name = PLACES[place].rpartition(".")
    owner = unet.get_submodule(parent)
    child = owner.get_submodule(name)
    setattr(owner, name, Doubled(child))
    if place == "upsampling":
        assert type(unet.up_blocks[0].upsamplers[0]) is FusedUpsample2D
    acted = _out(unet)
    assert distance(acted, before) > 1e-4
    assert distance(acted, _unfused(unet)) < 0.02
    setattr(owner, name, child)
    assert torch.equal(_out(unet), before)


@pytest.mark.parametrize("place", PLACES)
def test_a_hook_is_called(make: Make, place: str) -> None:
    unet, calls = make().unet, []
    before = _out(unet)
    module = unet.get_submodule(PLACES[place])
    handles = [
        module.register_forward_hook(lambda *_: calls.append("after")),
        module.register_forward_pre_hook(lambda *_: calls.append("before")),
    ]
    near = _out(unet)
    assert calls == ["before", "after"] and distance(near, before) < 0.02
    for handle in handles:
        handle.remove()
    assert torch.equal(_out(unet), before)


@pytest.mark.parametrize("place", PLACES)
def test_a_forward_of_its_own_is_called(make: Make, place: str) -> None:
    unet, calls = make().unet, []
    module = unet.get_submodule(PLACES[place])
    own = module.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(place)
        return own(*args, **kwargs)

    module.forward = counted
    _out(unet)
    assert calls == [place]


def test_blocks_that_nobody_touched_stay_fused(variant: StableDiffusionPipeline) -> None:
    with torch.no_grad():
        denoise(variant.unet)
        fused = [module for module in variant.unet.modules() if isinstance(module, FUSED)]
        assert all(runs_fused(block) for block in fused)
        assert len(fused) >= 5 or any(layer.is_dynamic for layer in quantized_layers(variant.unet).values())
        fused[0].register_forward_hook(lambda *_: None)
        assert runs_fused(fused[0]), "a hook on a block itself is called anyway"


def test_chunks_and_slices_and_freeu_act_and_go(make: Make) -> None:
    pipeline = make()
    before = draw(pipeline)
    pipeline.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
    assert distance(draw(pipeline), before) > 1e-3
    pipeline.disable_freeu()
    assert torch.equal(draw(pipeline), before)
    pipeline.enable_attention_slicing(1)
    assert distance(draw(pipeline), before) < 0.02
    pipeline.disable_attention_slicing()
    assert distance(draw(pipeline), before) < 0.02
