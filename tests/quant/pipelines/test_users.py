"""What else diffusers' users may do to a pipeline: compile, export, offload, adapt, steer.

It works, or one sentence says why not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    ControlNetModel,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from torch import Tensor, nn

from quant.checkpoints.layout import quantized_layers
from quant.engine.onednn import OneDNNEngine
from quant.engine.passes import TorchPasses
from quant.engine.reference import ReferenceEngine
from quant.errors import CaptureError, QuantError, RecipeMismatch
from quant.layers.output_correction import correction_of
from quant.layers.time_path.per_request import Projection
from tests.quant.pipelines.conftest import RECIPES, Make, denoise, distance, draw, inputs
from tests.support.toy_model import build_toy_pipeline

CPU = torch.device("cpu")
OFFLOADS: dict[str, dict[str, Any]] = {
    "blocks": {"offload_type": "block_level", "num_blocks_per_group": 1},
    "leaves": {"offload_type": "leaf_level"},
}


@torch.no_grad()
def _out(unet: nn.Module) -> Tensor:
    return denoise(unet)


@pytest.mark.parametrize(
    ("name", "engine"), [("attention", OneDNNEngine(TorchPasses())), ("tables", ReferenceEngine())]
)
def test_a_compiled_denoiser_gives_the_same(make: Make, name: str, engine: Any) -> None:
    unet, graphs = make(name).unet, []
    for layer in quantized_layers(unet).values():
        layer.engine = engine
    before = _out(unet)

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    assert torch.equal(_out(torch.compile(unet, backend=backend)), before)
    assert graphs, "what lies around the quantized layers is compiled"
    block = unet.mid_block.resnets[0]
    x, time = torch.randn(1, 40, 4, 4), torch.randn(1, 128)
    with torch.no_grad():
        assert torch.equal(torch.compile(block, backend=backend)(x, time), block(x, time))
    torch._dynamo.reset()


def test_what_a_compiler_cannot_improve_is_told(variant: StableDiffusionPipeline) -> None:
    with pytest.raises(RecipeMismatch, match="leave compile_repeated_blocks"):
        variant.unet.compile_repeated_blocks(fullgraph=True)


@pytest.mark.parametrize("name", RECIPES)
def test_tracing_and_exporting_are_refused_in_one_sentence(make: Make, name: str) -> None:
    unet, (x, context) = make(name).unet, inputs()
    arguments = (x, torch.tensor(501), context)
    for capture in (
        lambda: torch.jit.trace(unet, arguments, strict=False, check_trace=False),
        lambda: torch.export.export(unet, arguments),
    ):
        with pytest.raises(CaptureError, match=r"export the reference, or call dequantize\(\)"):
            capture()
    assert issubclass(CaptureError, RuntimeError) and issubclass(CaptureError, QuantError)
    _out(unet)


@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize("level", OFFLOADS)
def test_groups_are_offloaded(variant: StableDiffusionPipeline, level: str, where: str, tmp_path: Path) -> None:
    unet = variant.unet
    before = _out(unet)
    options = {"onload_device": CPU, "offload_device": CPU, **OFFLOADS[level]}
    options |= {"offload_to_disk_path": str(tmp_path)} if where == "disk" else {}
    if _looks_up_per_request(unet):
        with pytest.raises(RecipeMismatch, match="per_request cannot be offloaded in groups"):
            unet.enable_group_offload(**options)
        return
    if correction_of(unet) is not None:
        with pytest.raises(RecipeMismatch, match="output_correction cannot be offloaded in groups"):
            unet.enable_group_offload(**options)
        return
    unet.enable_group_offload(**options)
    for _ in range(2):
        assert distance(_out(unet), before) < 0.02
    assert where == "memory" or list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("call", ["load_lora_adapter", "add_adapter", "load_attn_procs"])
def test_adapters_are_refused_with_the_way_that_works(make: Make, call: str) -> None:
    unet = make().unet
    before = _out(unet)
    with pytest.raises(RecipeMismatch, match=r"load them into the reference, call fuse_lora\(\)"):
        getattr(unet, call)({})
    assert torch.equal(_out(unet), before)


def test_float_models_keep_diffusers_own_methods() -> None:
    unet = build_toy_pipeline().unet
    assert unet.num_parameters() == sum(p.numel() for p in unet.parameters())
    assert unet.to(torch.float16).dtype == torch.float16
    unet.fuse_qkv_projections()
    assert hasattr(unet.mid_block.attentions[0].transformer_blocks[0].attn1, "to_qkv")
    with pytest.raises(Exception, match=r"(?i)peft"):
        unet.add_adapter(None)


@pytest.mark.parametrize("name", ["w8a8", "tables", "attention", "mixed"])
def test_pictures_as_prompts_act(make: Make, name: str) -> None:
    unet, (x, context) = make(name).unet, inputs()
    before = _out(unet)
    unet._load_ip_adapter_weights([_picture_adapter(unet)], low_cpu_mem_usage=False)
    with torch.no_grad():
        pictures = [torch.randn(2, 1, 24, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
        drawn = [unet(x, 501, context, added_cond_kwargs={"image_embeds": [p]}).sample for p in pictures]
    assert drawn[0].isfinite().all() and distance(drawn[0], before) > 0.01 and distance(*drawn) > 1e-3


def _picture_adapter(unet: Any) -> dict[str, Any]:
    """Weights of an IP-Adapter with four tokens, as diffusers reads them."""
    generator, width = torch.Generator().manual_seed(0), unet.config.cross_attention_dim
    weights, key = {}, 1
    for name in unet.attn_processors:
        if name.endswith("attn1.processor"):
            continue
        attention = unet.get_submodule(name.removesuffix(".processor"))
        for part in ("to_k_ip", "to_v_ip"):
            weights[f"{key}.{part}.weight"] = torch.randn(attention.inner_dim, width, generator=generator)
        key += 2
    projection = {
        "proj.weight": torch.randn(4 * width, 24, generator=generator),
        "proj.bias": torch.zeros(4 * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    return {"image_proj": projection, "ip_adapter": weights}


@pytest.mark.parametrize("name", ["w8a8", "tables", "attention"])
def test_a_control_net_acts(make: Make, name: str) -> None:
    pipeline = make(name)
    torch.manual_seed(0)
    control = ControlNetModel.from_unet(build_toy_pipeline().unet, conditioning_embedding_out_channels=(16, 32))
    for module in (*control.controlnet_down_blocks.modules(), control.controlnet_cond_embedding.conv_out):
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.1)
    steered = StableDiffusionControlNetPipeline(
        **pipeline.components, controlnet=control.eval(), requires_safety_checker=False
    )
    steered.set_progress_bar_config(disable=True)
    pictures = [torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)]
    off, plain = draw(steered, image=pictures[0], controlnet_conditioning_scale=0.0), draw(pipeline)
    assert distance(off, plain) < 1e-5
    drawn = [draw(steered, image=picture) for picture in pictures]
    assert distance(drawn[0], plain) > 1e-3 and distance(*drawn) > 1e-4


def test_features_of_one_step_are_used_in_the_next(make: Make) -> None:
    """As DeepCache does: a block's own forward is wrapped, and its output of an earlier step returned."""
    pipeline = make()
    block, kept, calls = pipeline.unet.mid_block.resnets[0], [], []
    own = block.forward

    def cached(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if not kept:
            kept.append(own(*args, **kwargs))
        return kept[0]

    before = draw(pipeline)
    block.forward = cached
    assert distance(draw(pipeline), before) > 1e-4 and len(calls) == 2
    block.forward = own
    assert torch.equal(draw(pipeline), before)


def test_callbacks_interrupts_tiles_and_schedulers(variant: StableDiffusionPipeline) -> None:
    before, steps = draw(variant), []

    def after(pipe: Any, step: int, timestep: Tensor, kept: dict[str, Any]) -> dict[str, Any]:
        steps.append(step)
        return {"latents": kept["latents"] * 1.0}

    assert torch.equal(draw(variant, callback_on_step_end=after), before) and steps == [0, 1]

    def stop(pipe: Any, step: int, timestep: Tensor, kept: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = True
        return kept

    assert distance(draw(variant, callback_on_step_end=stop), before) > 0.01
    assert torch.equal(draw(variant), before)
    variant.vae.enable_tiling()
    variant.vae.enable_slicing()
    assert draw(variant, output_type="pt").isfinite().all()
    variant.vae.disable_tiling()
    variant.vae.disable_slicing()


@pytest.mark.parametrize("name", ["w8a8", "tables", "attention"])
def test_other_samplers_sizes_counts_and_guidance(make: Make, name: str) -> None:
    pipeline = make(name)
    assert draw(pipeline, num_images_per_prompt=2).shape == (2, 4, 8, 8)
    assert draw(pipeline, width=32, height=24).shape == (1, 4, 12, 16)
    assert bool(draw(pipeline, guidance_rescale=0.7, guidance_scale=5.0).isfinite().all())
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    assert bool(draw(pipeline, num_inference_steps=3).isfinite().all())
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)


@pytest.mark.parametrize(
    "kind", [AutoPipelineForImage2Image, AutoPipelineForInpainting, StableDiffusionImg2ImgPipeline]
)
def test_other_tasks_from_one_pipeline(make: Make, kind: Any) -> None:
    pipeline = make()
    before = draw(pipeline)
    other = kind.from_pipe(pipeline)
    other.set_progress_bar_config(disable=True)
    assert other.unet is pipeline.unet
    given: dict[str, Any] = {"image": torch.rand(1, 3, 16, 16), "strength": 1.0, "num_inference_steps": 2}
    if kind is AutoPipelineForInpainting:
        given |= {"mask_image": torch.ones(1, 1, 16, 16), "width": 16, "height": 16}
    assert other("red blob", output_type="latent", **given).images.isfinite().all()
    assert torch.equal(draw(pipeline), before)


def test_layers_stored_in_fewer_bits(variant: StableDiffusionPipeline) -> None:
    unet = variant.unet
    if _looks_up_per_request(unet):
        return
    before = _out(unet)
    unet.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
    assert distance(_out(unet), before) < 0.05


def test_a_copy_of_a_copy(variant: StableDiffusionPipeline) -> None:
    before = _out(variant.unet)
    assert torch.equal(_out(copy.deepcopy(copy.deepcopy(variant.unet))), before)


def _looks_up_per_request(unet: Any) -> bool:
    return any(isinstance(module, Projection) for module in unet.modules())
