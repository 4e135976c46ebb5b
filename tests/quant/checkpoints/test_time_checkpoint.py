"""The time path of quantized denoisers, and through checkpoints."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from quant.checkpoints.checkpoint import round_as_stored, save_checkpoint
from quant.checkpoints.conversion import dequantize
from quant.checkpoints.layout import Layout, prepare, quantized_layers
from quant.errors import CheckpointError, RecipeMismatch, TimestepError
from quant.layers.time_path.precalculated import projections
from tests.support.timed_unet import (
    PRECALCULATED,
    SDXL,
    TIMESTEPS,
    WEIGHTS,
    build_unet,
    distance,
    pair,
    pooled,
    precalculate,
    quantized,
    run,
)
from tests.support.tiny_model import build_tiny_pipeline
from tests.support.tiny_world import KEPT


def test_time_layers_are_never_quantized_and_their_patterns_are_known() -> None:
    unet = build_unet(**SDXL)
    layout = Layout(keep_float=(*KEPT, "add_embedding.*"), time_path="per_request", schedule=TIMESTEPS)
    plan = prepare(copy.deepcopy(unet), replace(layout, keep_float=("conv_in",)))
    timed = [name for name in plan.float_layers if name != "conv_in"]
    assert len(timed) == 8 + 4 and not [name for name in plan.bits if "time_emb" in name or "add_emb" in name]
    assert prepare(unet, layout).bits.keys() == plan.bits.keys() - {"conv_out"}
    plain = build_unet()
    before = prepare(plain, PRECALCULATED)
    precalculate(plain, TIMESTEPS)
    assert prepare(plain, PRECALCULATED) == before and before.float_layers == ("conv_in", "conv_out")
    for wrong in ({"keep_float": ("nowhere",)}, {"layer_bits": {"*.time_emb_proj": 4}}):
        with pytest.raises(RecipeMismatch, match="matches no layer"):
            prepare(build_unet(), replace(PRECALCULATED, **wrong))


def test_a_quantized_denoiser_gives_the_same_numbers_as_with_its_layers() -> None:
    kept = quantized(Layout(keep_float=KEPT))
    tabled = quantized(PRECALCULATED)
    _, early = pair(precalculate)
    looked_up = quantized(replace(PRECALCULATED, time_path="per_request"))
    for timestep in TIMESTEPS:
        wanted = run(kept, timestep)
        assert torch.equal(run(tabled, timestep), wanted)
        assert torch.equal(run(quantized(PRECALCULATED, early), timestep), wanted)
        # Rows that differ by 3e-8 turn a code over here and there, and that changes the codes of later layers.
        exact = run(build_unet(), timestep)
        assert distance(run(looked_up, timestep), exact) < 1.3 * distance(wanted, exact)
    plain = dequantize(copy.deepcopy(tabled))
    assert not quantized_layers(plain) and distance(run(plain, 21.0), run(tabled, 21.0)) < 0.3


def _saved(layout: Layout, folder: Path, unet: UNet2DConditionModel | None = None) -> nn.Module:
    """Writes a quantized pipeline and returns its denoiser, with the numbers that were written."""
    pipeline = build_tiny_pipeline()
    pipeline.unet = denoiser = quantized(layout, unet)
    save_checkpoint(pipeline, denoiser, layout, folder)
    round_as_stored(pipeline, denoiser)
    return denoiser


@pytest.mark.parametrize("mode", ["precalculate", "per_request", "keep"])
def test_a_checkpoint_comes_back(mode: str, tmp_path: Path) -> None:
    layout = replace(PRECALCULATED, time_path=mode)
    config = SDXL if mode == "per_request" else {}
    more: dict[str, Any] = {"added_cond_kwargs": pooled(2, 1)} if config else {}
    saved = _saved(replace(layout, keep_float=(*KEPT, "add_*") if config else KEPT), tmp_path, build_unet(**config))
    loaded = UNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet").eval()
    assert loaded.hf_quantizer.quantization_config.layout.time_path == mode
    for timestep in TIMESTEPS:
        wanted = run(saved, timestep, 2, **more)
        assert all(torch.equal(run(one, timestep, 2, **more), wanted) for one in (loaded, copy.deepcopy(loaded)))
    if mode != "keep":
        with pytest.raises(TimestepError, match="not in the schedule"):
            run(loaded, 500, 2, **more)
    stored = load_file(tmp_path / "unet" / WEIGHTS)
    assert stored.keys() == loaded.state_dict().keys()
    assert any("time_embedding" in name for name in stored) == (mode != "precalculate")
    low = UNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet", torch_dtype=torch.bfloat16).eval()
    assert low.dtype == torch.bfloat16 and len(projections(low)) == (8 if mode == "precalculate" else 0)
    for name, projection in projections(low).items():
        assert projection.table.dtype == torch.float32 and torch.equal(projection.table, stored[f"{name}.table"])
    assert run(low, 981, 2, torch.bfloat16, **more).isfinite().all()


TABLE = "mid_block.resnets.0.time_emb_proj.table"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({TABLE: torch.zeros(3, 64)}, "has shape"),
        ({TABLE: torch.cat([torch.full((1, 64), torch.nan), torch.zeros(3, 64)])}, "must be finite"),
        ({TABLE: torch.full((4, 64), torch.inf)}, "must be finite"),
        ({TABLE: torch.zeros(4, 64).half()}, "wanted torch.float32"),
        ({TABLE: None}, "lacks 1 tensors"),
        ({"time_embedding.linear_1.weight": torch.zeros(128, 32)}, "too many, the first is time_embedding"),
    ],
)
def test_damage_is_named(change: dict[str, Tensor | None], message: str, tmp_path: Path) -> None:
    _saved(PRECALCULATED, tmp_path)
    path = tmp_path / "unet" / WEIGHTS
    tensors = {name: tensor for name, tensor in (load_file(path) | change).items() if tensor is not None}
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=message) as raised:
        UNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet")
    assert next(iter(change)).removesuffix(".table") in str(raised.value)
