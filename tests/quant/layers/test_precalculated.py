"""The time path in tables, against the float model that computes it."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from quant.checkpoints.layout import Layout, finish, lay_out
from quant.errors import CheckpointError, RecipeMismatch, TimestepError
from quant.layers.time_path.precalculated import PrecalculatedProjection, projections
from quant.layers.time_path.schedule import Schedule
from tests.support.timed_unet import (
    PRECALCULATED,
    SDXL,
    TIMESTEPS,
    build_unet,
    distance,
    inputs,
    pair,
    per_request,
    precalculate,
    projected,
    quantized,
    run,
    whole,
)


def test_rows_are_those_of_the_float_model_bit_for_bit() -> None:
    unet, tabled = pair(precalculate)
    with torch.no_grad():
        for row, timestep in enumerate(TIMESTEPS):
            embedding = unet.time_embedding(unet.get_time_embed(torch.zeros(1, 1), timestep))
            for name, projection in projections(tabled).items():
                wanted = unet.get_submodule(name)(nn.functional.silu(embedding))
                assert torch.equal(projection.table[row : row + 1], wanted) and wanted.dtype == torch.float32
            assert torch.equal(run(tabled, timestep), run(unet, timestep))
    assert len(projections(tabled)) == 8


@pytest.mark.parametrize("timestep", [501, 501.0, torch.tensor(501), torch.tensor([501]), torch.tensor([501.0] * 3)])
def test_a_timestep_may_come_in_any_form(timestep: Any) -> None:
    unet, tabled = pair(precalculate)
    for given in (projected, whole):
        assert distance(given(tabled, timestep, batch=3), given(unet, timestep, batch=3)) <= 1e-6
    latents, context = inputs(3)
    with torch.no_grad():
        named = tabled(latents, timestep=timestep, encoder_hidden_states=context, return_dict=False)[0]
    assert torch.equal(named, run(tabled, timestep, batch=3))


@pytest.mark.parametrize(
    "config",
    [
        {"resnet_time_scale_shift": "scale_shift"},
        {"resnet_skip_time_act": True, "up_block_types": ("CrossAttnUpBlock2D", "ResnetUpsampleBlock2D")},
        {"time_embedding_act_fn": "gelu", "timestep_post_act": "silu"},
        {"time_embedding_type": "fourier", "encoder_hid_dim": 32, "encoder_hid_dim_type": "text_proj"},
    ],
)
def test_other_kinds_of_blocks_and_embeddings(config: dict[str, Any]) -> None:
    unet, tabled = pair(precalculate, **config)
    for timestep in torch.tensor(TIMESTEPS):  # of a number, fourier features would be made in float64
        assert torch.equal(run(tabled, timestep), run(unet, timestep))


def test_the_layers_are_gone() -> None:
    unet, width, embedding = build_unet(), 32, 128
    before = unet.num_parameters()
    channels = [block.out_channels for name, block in unet.named_modules() if hasattr(block, "time_emb_proj")]
    precalculate(unet, TIMESTEPS)
    mlp = (width + 1) * embedding + (embedding + 1) * embedding
    assert before - unet.num_parameters() == sum(c * (embedding + 1) for c in channels) + mlp
    names = [name for name in unet.state_dict() if "time_emb" in name]
    assert len(names) == 8 and all(name.endswith(".time_emb_proj.table") for name in names)
    assert sum(buffer.numel() for buffer in unet.buffers()) == len(TIMESTEPS) * sum(channels)


def test_a_timestep_outside_of_the_schedule_is_refused_with_those_allowed() -> None:
    _, unet = pair(precalculate)
    for timestep in (500, 741, float("nan"), torch.tensor([981, 1]), -1):
        with pytest.raises(TimestepError, match=r"not in the schedule of this denoiser: 981, 741\.5, 501, 21$"):
            run(unet, timestep, batch=2)
    with pytest.raises(TimestepError, match="and 50 more"):
        Schedule(range(100)).select(100)
    for bad in ((), (-1.0,), (float("inf"),)):
        with pytest.raises(TimestepError, match="one timestep or more"):
            Schedule(bad)
    of_json = Schedule([0.1, 979.0204081632653])
    of_json.select(torch.tensor(979.0204081632653, dtype=torch.float32))  # a scheduler's
    assert of_json.current == 1


def test_duplicates_are_stored_once_and_order_is_kept() -> None:
    schedule = precalculate(unet := build_unet(), (981.0, 741.5, 741.5, 501.0, 501.0, 21.0))
    assert schedule.timesteps == TIMESTEPS and len(schedule) == 4
    assert all(len(projection.table) == 4 for projection in projections(unet).values())
    assert torch.equal(run(unet, 21), run(build_unet(), 21))


def test_another_schedule_is_built_from_the_float_model() -> None:
    unet, first = pair(precalculate)
    second, other = copy.deepcopy(unet), (961.0, 30.0)
    precalculate(second, other)
    assert torch.equal(run(second, 30.0), run(unet, 30.0))
    with pytest.raises(TimestepError, match="961, 30"):
        run(second, 981)
    with pytest.raises(RecipeMismatch, match="start from the float model"):
        precalculate(first, other)
    with pytest.raises(RecipeMismatch, match="start from the float model"):
        finish(first, replace(PRECALCULATED, schedule=other))


def test_a_batch_of_different_timesteps_is_its_pictures_one_by_one() -> None:
    for mode in (precalculate, per_request):
        unet = build_unet()
        schedule = mode(unet, TIMESTEPS)
        latents, context = inputs(3)
        mixed = torch.tensor([21.0, 981.0, 741.5])
        together = run(unet, mixed, 3)
        assert torch.equal(schedule.current, torch.tensor([3, 0, 1]))
        with torch.no_grad():
            alone = [unet(latents[i : i + 1], t, context[i : i + 1]).sample for i, t in enumerate(mixed)]
        assert distance(together, torch.cat(alone)) <= 5e-6  # other layers sum in another order for another batch
        for given in (projected, whole):
            assert distance(given(unet, mixed, 3), given(build_unet(), mixed, 3)) <= 1e-6


def test_another_dtype_leaves_the_table_as_it_is() -> None:
    unet, tabled = pair(precalculate)
    tables = {name: projection.table.clone() for name, projection in projections(tabled).items()}
    out = run(tabled.to(torch.bfloat16), 981, 2, torch.bfloat16)
    assert out.dtype == tabled.dtype == torch.bfloat16
    assert distance(out.float(), run(unet, 981, batch=2)) < 0.03
    assert all(torch.equal(projection.table, tables[name]) for name, projection in projections(tabled).items())
    low = unet.to(torch.bfloat16)
    wide = copy.deepcopy(low).float()
    for model in (low, wide):
        precalculate(model, TIMESTEPS)
    assert all(torch.equal(one.table, projections(wide)[name].table) for name, one in projections(low).items())


def test_a_copy_has_a_schedule_of_its_own() -> None:
    for mode in (precalculate, per_request):
        unet = build_unet()
        schedule = mode(unet, TIMESTEPS)
        twin = copy.deepcopy(unet)
        wanted = run(unet, 981)
        assert schedule.current == 0
        for given in (projected, whole):
            assert distance(given(twin, 21), given(build_unet(), 21)) <= 1e-6
        assert schedule.current == 0 and torch.equal(run(unet, 981), wanted)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SDXL, "text_embeds, time_ids.*per_request"),
        ({"num_class_embeds": 5}, "class_labels.*per_request"),
        ({"time_cond_proj_dim": 8}, "timestep_cond.*per_request"),
        ({"addition_embed_type": "text", "encoder_hid_dim": 32}, "keep the time path"),
    ],
)
def test_only_a_function_of_the_timestep_is_precalculated(config: dict[str, Any], message: str) -> None:
    unet = build_unet(**config)
    before = unet.state_dict().keys()
    with pytest.raises(RecipeMismatch, match=message):
        precalculate(unet, TIMESTEPS)
    with torch.device("meta"), pytest.raises(RecipeMismatch, match=message):
        lay_out(unet, replace(PRECALCULATED, keep_float=()))
    assert {name for name in before if "time" in name} <= unet.state_dict().keys()


def test_what_is_no_unet_or_quantized_is_refused() -> None:
    projection = PrecalculatedProjection(3, 8)
    projection.schedule = Schedule(TIMESTEPS)
    with pytest.raises(CheckpointError, match="3 rows for 4 timesteps"):
        projection.check()
    with pytest.raises(RecipeMismatch, match="Sequential"):
        precalculate(nn.Sequential(nn.Linear(2, 2)), TIMESTEPS)
    kept = quantized(Layout())
    for mode in (precalculate, per_request):
        with pytest.raises(RecipeMismatch, match="quantized or replaced"):
            mode(kept, TIMESTEPS)
