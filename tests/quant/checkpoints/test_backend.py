"""What diffusers expects of a quantization backend, and what it does with our checkpoints."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, PipelineQuantizationConfig, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn

from quant.checkpoints.backend import FORMAT_VERSION, FacsimileConfig
from quant.checkpoints.layout import quantized_layers
from quant.checkpoints.pipelines import load_reference
from quant.errors import CheckpointError, RecipeMismatch
from tests.support.tiny_world import KEPT, TinyWorld

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def unet(tiny: TinyWorld) -> UNet2DConditionModel:
    return _load(tiny)


def _load(tiny: TinyWorld, bits: int = 8, **arguments: object) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(tiny.folder(bits), subfolder="unet", **arguments).eval()


@torch.no_grad()
def _run(unet: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x, context = torch.randn(2, 4, 32, 32, generator=generator), torch.randn(2, 16, 32, generator=generator)
    return unet(x.to(dtype), 300, context.to(dtype)).sample  # type: ignore[no-any-return]


def test_number_of_parameters(tiny: TinyWorld, unet: UNet2DConditionModel) -> None:
    assert unet.num_parameters() == load_reference(tiny.description).unet.num_parameters()


@pytest.mark.parametrize(("bits", "share"), [(8, 0.32), (4, 0.21)])
def test_memory_footprint(tiny: TinyWorld, bits: int, share: float) -> None:
    quantized, reference = _load(tiny, bits).get_memory_footprint(), load_reference(tiny.description).unet
    floating = sum(4 * p.numel() for name, p in reference.named_parameters() if "conv_in" in name or "time_emb" in name)
    assert quantized - floating < share * reference.get_memory_footprint()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_inference_in_every_dtype(tiny: TinyWorld, dtype: torch.dtype) -> None:
    out = _run(_load(tiny, dtype=dtype), dtype)
    assert out.dtype == dtype and bool(out.isfinite().all())


def test_dtype_cannot_be_changed_after_loading(unet: UNet2DConditionModel) -> None:
    for change in (lambda: unet.to(torch.float16), lambda: unet.to("cpu", torch.float16), unet.half, unet.float):
        with pytest.raises(ValueError, match="quantized"):
            change()
    unet.to("cpu")


def test_moving_keeps_the_numbers(unet: UNet2DConditionModel) -> None:
    before = _run(unet)
    assert torch.equal(_run(unet.to("cpu")), before)


def test_a_copy_gives_the_same_numbers(unet: UNet2DConditionModel) -> None:
    before = _run(unet)
    assert torch.equal(_run(copy.deepcopy(unet)), before)


@pytest.mark.parametrize("bits", [8, 4])
def test_serialization_after_use(tiny: TinyWorld, bits: int, tmp_path: Path) -> None:
    unet = _load(tiny, bits)
    before = _run(unet)
    unet.save_pretrained(tmp_path)
    assert torch.equal(_run(UNet2DConditionModel.from_pretrained(tmp_path)), before)


def test_sharded_serialization(unet: UNet2DConditionModel, tmp_path: Path) -> None:
    unet.save_pretrained(tmp_path, max_shard_size="300KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2 and (tmp_path / f"{WEIGHTS}.index.json").is_file()
    assert torch.equal(_run(UNet2DConditionModel.from_pretrained(tmp_path)), _run(unet))


def test_serialization_under_a_variant_name(unet: UNet2DConditionModel, tmp_path: Path) -> None:
    unet.save_pretrained(tmp_path, variant="w8a8")
    assert torch.equal(_run(UNet2DConditionModel.from_pretrained(tmp_path, variant="w8a8")), _run(unet))


def test_only_plain_tensors_are_stored(unet: UNet2DConditionModel, tmp_path: Path) -> None:
    _run(unet)
    unet.save_pretrained(tmp_path)
    kinds = {tensor.dtype for tensor in load_file(tmp_path / WEIGHTS).values()}
    assert kinds == {torch.float32, torch.int32, torch.int8, torch.uint8}
    assert not [path for path in tmp_path.iterdir() if path.suffix not in {".json", ".safetensors"}]


def test_every_layer_but_the_kept_ones_is_quantized(unet: UNet2DConditionModel) -> None:
    plain = [name for name, module in unet.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    assert plain and all(
        name.startswith(("conv_in", "conv_out", "time_embedding")) or "time_emb_proj" in name for name in plain
    )


def test_what_stays_floating_point_takes_the_dtype_and_scales_do_not(tiny: TinyWorld) -> None:
    unet = _load(tiny, dtype=torch.bfloat16)
    assert unet.dtype == torch.bfloat16 and unet.conv_in.weight.dtype == torch.bfloat16
    stored = load_file(tiny.folder(8) / "unet" / WEIGHTS)
    for name, layer in quantized_layers(unet).items():
        assert torch.equal(layer.input_scale, stored[f"{name}.input_scale"])
        assert torch.equal(layer.weight_scale, stored[f"{name}.weight_scale"])


def test_a_device_map(tiny: TinyWorld, unet: UNet2DConditionModel) -> None:
    assert torch.equal(_run(_load(tiny, device_map={"": "cpu"})), _run(unet))


def test_dequantize(tiny: TinyWorld, unet: UNet2DConditionModel) -> None:
    quantized = _run(unet)
    unet.dequantize()
    assert not quantized_layers(unet)
    reference = load_reference(tiny.description).unet
    assert unet.state_dict().keys() == reference.state_dict().keys()
    floats, wanted = _run(unet), _run(reference)
    assert 0 < (floats - wanted).norm() / wanted.norm() < (quantized - wanted).norm() / wanted.norm() < 0.3


def test_the_weight_of_a_layer_can_be_looked_at(unet: UNet2DConditionModel) -> None:
    layer = unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q
    before = (layer.weight.dtype, layer.weight.device.type, layer.weight.shape)
    _run(unet)
    assert (layer.weight.dtype, layer.weight.device.type, layer.weight.shape) == before


def test_memory_is_given_back_once(unet: UNet2DConditionModel, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr("quant.engine.memory.trim", lambda: calls.append(1))
    copied = copy.deepcopy(unet)
    for model in (unet, unet, copied, copied):
        _run(model)
    assert len(calls) == 2


def test_merging_projections_changes_nothing(unet: UNet2DConditionModel) -> None:
    before = _run(unet)
    for change in (unet.fuse_qkv_projections, unet.unfuse_qkv_projections):
        change()
        assert torch.equal(_run(unet), before)


def test_it_cannot_be_trained_or_compiled_by_mistake(unet: UNet2DConditionModel) -> None:
    assert not unet.hf_quantizer.is_trainable and not unet.hf_quantizer.is_compileable
    assert unet.hf_quantizer.is_serializable


def test_a_pipeline_quantization_config_for_a_quantized_checkpoint(tiny: TinyWorld) -> None:
    config = PipelineQuantizationConfig(quant_mapping={"unet": FacsimileConfig()})
    pipeline = DiffusionPipeline.from_pretrained(tiny.folder(8), quantization_config=config)
    assert torch.equal(_run(pipeline.unet), _run(_load(tiny)))


def test_quantizing_while_loading_needs_no_data_and_is_saved(tiny: TinyWorld, tmp_path: Path) -> None:
    config = FacsimileConfig(weight_bits=8, keep_float=KEPT[2:], dynamic_activations=True)
    pipeline = DiffusionPipeline.from_pretrained(
        tiny.description.source, quantization_config=PipelineQuantizationConfig(quant_mapping={"unet": config})
    )
    reference = load_reference(tiny.description).unet
    linear = [name for name, module in reference.named_modules() if isinstance(module, nn.Linear)]
    expected = [name for name in linear if "time_emb" not in name]
    assert list(quantized_layers(pipeline.unet)) == expected
    out, wanted = _run(pipeline.unet), _run(reference)
    assert 0 < (out - wanted).norm() / wanted.norm() < 0.1
    pipeline.save_pretrained(tmp_path)
    again = DiffusionPipeline.from_pretrained(tmp_path)
    assert torch.equal(_run(again.unet), out)


def test_quantizing_while_loading_with_calibrated_scales_is_refused(tiny: TinyWorld) -> None:
    with pytest.raises(CheckpointError, match="facsimile quantize"):
        UNet2DConditionModel.from_pretrained(
            tiny.description.source, subfolder="unet", quantization_config=FacsimileConfig()
        )


def test_the_configuration_is_json_and_comes_back(tiny: TinyWorld) -> None:
    stored = json.loads((tiny.folder(4) / "unet" / "config.json").read_text())["quantization_config"]
    assert stored["quant_method"] == "facsimile" and stored["format_version"] == FORMAT_VERSION
    again = FacsimileConfig(**{name: value for name, value in stored.items() if name != "quant_method"})
    assert json.loads(json.dumps(again.to_dict())) == stored


@pytest.mark.parametrize(("version", "message"), [(FORMAT_VERSION + 1, "newer"), (1, "older"), ("x", "newer")])
def test_another_format_is_refused(tiny: TinyWorld, tmp_path: Path, version: object, message: str) -> None:
    _load(tiny).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"]["format_version"] = version
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        UNet2DConditionModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("field", ["weight_bit", "keep_floats", "dynamic", "bits_and_bytes", "Packed"])
def test_a_field_that_there_is_not_is_refused(field: str) -> None:
    with pytest.raises(RecipeMismatch, match=f"no field '{field}'.*weight_bits, keep_float") as refused:
        FacsimileConfig(dynamic_activations=True, **{field: 4})
    assert ("perhaps" in str(refused.value)) == (field in ("weight_bit", "keep_floats", "Packed"))


def test_an_unknown_field_of_a_checkpoint_is_refused(tiny: TinyWorld, tmp_path: Path) -> None:
    _load(tiny).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"]["rotation"] = True
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RecipeMismatch, match="rotation"):
        UNet2DConditionModel.from_pretrained(tmp_path)
