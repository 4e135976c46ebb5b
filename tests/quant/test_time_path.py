"""The time path, looked up: against the float model that computes it, and through checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from quant.checkpoint import save_checkpoint
from quant.conversion import Parameters, convert, dequantize
from quant.errors import CheckpointError, RecipeMismatch, TimestepError
from quant.layout import Layout, finish, lay_out, prepare, quantized_layers
from quant.modules.time_path.per_request import per_request
from quant.modules.time_path.precalculated import PrecalculatedProjection, precalculate, projections
from quant.modules.time_path.schedule import Schedule
from quant.quantizers.activation import ActivationParameters, ActivationTable
from quant.quantizers.weight import quantize_weight
from tests.quant.conftest import KEPT
from tests.tiny_model import build_tiny_pipeline

TIMESTEPS = (981.0, 741.5, 501.0, 21.0)
WEIGHTS = "diffusion_pytorch_model.safetensors"
PRECALCULATED = Layout(keep_float=KEPT, time_path="precalculate", schedule=TIMESTEPS)


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
    assert distance(run(tabled, timestep, batch=3), run(unet, timestep, batch=3)) <= 1e-6
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
        projection = unet.mid_block.resnets[0].time_emb_proj
        rows = projection.table if mode is precalculate else projection.rows[:, 0]
        schedule.select(mixed)
        assert torch.equal(projection(torch.zeros(3, 1)), rows[[3, 0, 1]])
        assert distance(together, torch.cat(alone)) <= 5e-6  # other layers sum in another order for another batch
        assert distance(together, run(build_unet(), mixed, batch=3)) <= 1e-6


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
        assert distance(run(twin, 21), run(build_unet(), 21)) <= 1e-6
        assert schedule.current == 0 and torch.equal(run(unet, 981), wanted)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SDXL, "addition_embed_type.*per_request"),
        ({"num_class_embeds": 5}, "class_embedding.*per_request"),
        ({"time_cond_proj_dim": 8}, "time_cond_proj_dim.*per_request"),
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


@pytest.mark.parametrize("config", [SDXL, {}], ids=["pooled", "plain"])
def test_per_request_is_the_float_model(config: dict[str, Any]) -> None:
    unet, served = pair(per_request, **config)
    assert served.state_dict().keys() == unet.state_dict().keys()
    projection = served.mid_block.resnets[0].time_emb_proj
    with pytest.raises(TimestepError, match="called first"):
        projection(torch.zeros(1, 1))
    for batch, seed in ((2, 1), (2, 2), (1, 2), (3, 1), (2, 1)):
        more = {"added_cond_kwargs": pooled(batch, seed)} if config else {}
        for timestep in (*TIMESTEPS, torch.tensor(TIMESTEPS[:batch])):
            assert distance(run(served, timestep, batch, **more), run(unet, timestep, batch, **more)) <= 1e-6
        assert projection.rows.shape == (4, batch if config else 1, 64)
    if config:  # texts matter, so the test can fail
        one, two = (run(unet, 981.0, 2, added_cond_kwargs=pooled(2, seed)) for seed in (1, 2))
        assert distance(one, two) > 1e-4


def test_a_request_is_computed_once_and_noticed_by_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    unet = build_unet(**SDXL)
    per_request(unet, TIMESTEPS)
    calls: list[torch.Size] = []
    kind = type(unet.mid_block.resnets[0].time_emb_proj)
    compute = kind.compute
    monkeypatch.setattr(kind, "compute", lambda self, x: (calls.append(x.shape), compute(self, x)))
    added = pooled(2, 1)
    for timestep in TIMESTEPS:
        run(unet, timestep, 2, added_cond_kwargs={name: tensor.clone() for name, tensor in added.items()})
    assert calls == [torch.Size((len(TIMESTEPS), 2, 128))] * 8
    added["time_ids"][1, 0] += 1  # in place: the same object, other values
    run(unet, 981.0, 2, added_cond_kwargs=added)
    added["text_embeds"][0, 0] += 1
    got = run(unet, 981.0, 2, added_cond_kwargs=added)
    assert len(calls) == 3 * 8
    assert distance(got, run(build_unet(**SDXL), 981.0, 2, added_cond_kwargs=added)) <= 1e-6


def test_rows_follow_dtype_and_forgetting_follows_weights() -> None:
    unet = build_unet(**SDXL)
    schedule = per_request(unet, TIMESTEPS)
    added = pooled(2, 1)
    run(unet, 21.0, 2, added_cond_kwargs=added)
    other = build_unet(**SDXL)
    other.mid_block.resnets[0].time_emb_proj.weight.mul_(3.0)
    unet.load_state_dict(other.state_dict())
    schedule.forget()
    assert distance(run(unet, 21.0, 2, added_cond_kwargs=added), run(other, 21.0, 2, added_cond_kwargs=added)) <= 1e-6
    got, wanted = (run(model.double(), 21.0, 2, torch.float64, added_cond_kwargs=added) for model in (unet, other))
    assert distance(got, wanted) <= 1e-12


@pytest.mark.parametrize("concatenated", [True, False])
def test_labels_and_guidance_embeddings_are_conditioning_too(concatenated: bool) -> None:
    config = {"num_class_embeds": 5, "class_embeddings_concat": concatenated, "time_cond_proj_dim": 8}
    unet, served = pair(per_request, **config)
    for labels in ([0, 4], [4, 4]):
        more = {"class_labels": torch.tensor(labels), "timestep_cond": inputs(2, labels[0])[1][:, 0, :8]}
        for timestep in TIMESTEPS[:2]:
            wanted = run(unet, timestep, 2, **more)
            assert distance(run(served, timestep, 2, **more), wanted) <= 1e-6
            with torch.no_grad():
                positional = served(inputs(2)[0], timestep, inputs(2)[1], *more.values()).sample
            assert distance(positional, wanted) <= 1e-6


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
    for parameter in denoiser.parameters():
        parameter.data = parameter.data.float()
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
