"""A tiny UNet in floating point and with its time path looked up."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from quant.checkpoints.conversion import Parameters, convert
from quant.checkpoints.layout import Layout, prepare
from quant.discovery import anatomy_of
from quant.layers.time_path import per_request as requested
from quant.layers.time_path import precalculated
from quant.layers.time_path.per_request import RequestSchedule
from quant.layers.time_path.schedule import Schedule
from quant.quantizers.activation import ActivationParameters, ActivationTable
from quant.quantizers.weight import quantize_weight
from tests.support.tiny_world import KEPT

TIMESTEPS = (981.0, 741.5, 501.0, 21.0)
WEIGHTS = "diffusion_pytorch_model.safetensors"
PRECALCULATED = Layout(keep_float=KEPT, time_path="precalculate", schedule=TIMESTEPS)


def precalculate(unet: nn.Module, timesteps: Sequence[float]) -> Schedule:
    """The time path in tables."""
    return precalculated.precalculate(unet, anatomy_of(unet).time_path(unet), timesteps)


def per_request(unet: nn.Module, timesteps: Sequence[float]) -> RequestSchedule:
    """The time path once a request."""
    return requested.per_request(unet, anatomy_of(unet).time_path(unet), timesteps)


def build_unet(**config: Any) -> UNet2DConditionModel:
    """A tiny UNet whose embedding may have conditioning."""
    torch.manual_seed(0)
    down, up = ("DownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")
    unet = UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(32, 64),
        cross_attention_dim=32, attention_head_dim=2, norm_num_groups=8,
        **{"down_block_types": down, "up_block_types": up} | config,
    )  # fmt: skip
    return unet.eval().requires_grad_(False)  # type: ignore[no-any-return]


SDXL = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 80}


def pair(mode: Callable[[nn.Module, tuple[float, ...]], Schedule], **config: Any) -> tuple[UNet2DConditionModel, ...]:
    """The same UNet in floating point and with its time path looked up."""
    unet = build_unet(**config)
    mode(served := copy.deepcopy(unet), TIMESTEPS)
    return unet, served


def inputs(batch: int = 1, seed: int = 3) -> tuple[Tensor, Tensor]:
    """Latents and encoded prompts."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 4, 16, 16, generator=generator), torch.randn(batch, 7, 32, generator=generator)


def pooled(batch: int, seed: int) -> dict[str, Tensor]:
    """SDXL's conditioning."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor([[64.0, 64, 0, 8 * seed, 64, 64]]).repeat(batch, 1)
    return {"text_embeds": torch.randn(batch, 32, generator=generator), "time_ids": sizes}


def run(unet: nn.Module, timestep: Any, batch: int = 1, dtype: torch.dtype = torch.float32, **more: Any) -> Tensor:
    """The output for the usual inputs."""
    latents, context = inputs(batch)
    with torch.no_grad():
        return unet(latents.to(dtype), timestep, context.to(dtype), **more).sample  # type: ignore[no-any-return]


def projected(unet: nn.Module, timestep: Any, batch: int = 1, **more: Any) -> Tensor:
    """What the time path gives to the blocks in a call with the usual inputs, [B, sum of widths]."""
    found: list[Tensor] = []
    handles = [
        module.register_forward_hook(lambda _, args, output: found.append(output.expand(batch, -1)))
        for name, module in unet.named_modules()
        if name.endswith("time_emb_proj")
    ]
    run(unet, timestep, batch, **more)
    for handle in handles:
        handle.remove()
    assert len(found) == len(handles) > 0
    return torch.cat(found, dim=1)


def whole(unet: nn.Module, timestep: Any, batch: int = 1, **more: Any) -> Tensor:
    """The output for the usual inputs in float64, where the order of sums, other for every processor, is not seen."""
    wide = {
        name: given.double() if torch.is_tensor(given) and given.is_floating_point() else given
        for name, given in more.items()
    }
    return run(copy.deepcopy(unet).double(), timestep, batch, torch.float64, **wide)


def distance(got: Tensor, wanted: Tensor) -> float:
    """Relative to `wanted`."""
    return ((got - wanted).norm() / wanted.norm()).item()


def quantized(layout: Layout, unet: UNet2DConditionModel | None = None) -> UNet2DConditionModel:
    """A UNet converted with one range for all inputs: what it says matters to nobody here."""
    unet = copy.deepcopy(unet or build_unet())
    plan = prepare(unet, layout)
    table = ActivationTable((ActivationParameters.from_range(-4.0, 4.0),))
    weights = {name: quantize_weight(unet.get_submodule(name).weight, bits) for name, bits in plan.bits.items()}
    convert(unet, layout, Parameters(weights, dict.fromkeys(weights, table)))
    return unet
