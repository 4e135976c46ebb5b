"""Checkpoints: plain diffusers loads them, they come back bit for bit, and damage is named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from contract.places import ROOT
from quant.checkpoints.card_file import CARD, read_card
from quant.checkpoints.checkpoint import digest, verify
from quant.checkpoints.layout import quantized_layers
from quant.checkpoints.pipelines import load_unsigned, load_variant
from quant.errors import CheckpointError
from quant.sampling.generation import generate
from quant.sampling.request import Sampling
from tests.support.tiny_world import TinyWorld

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
REQUEST = Sampling("a red box", seed=5, num_inference_steps=2, width=64, height=64)


@pytest.fixture
def copied(tiny: TinyWorld, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny.folder(8), tmp_path / "variant"))


def _rewrite(folder: Path, change: dict[str, torch.Tensor | None]) -> None:
    tensors = load_file(folder / WEIGHTS)
    for name, tensor in change.items():
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def test_plain_diffusers_loads_it_in_a_fresh_process(tiny: TinyWorld, tmp_path: Path) -> None:
    program = (
        "import sys, torch, quant\nfrom diffusers import DiffusionPipeline\n"
        "pipe = DiffusionPipeline.from_pretrained(sys.argv[1])\n"
        "noise = torch.randn((1, 4, 32, 32), generator=torch.Generator().manual_seed(5))\n"
        "out = pipe('a red box', latents=noise, num_inference_steps=2, guidance_scale=4.0, output_type='latent')\n"
        "torch.save(out.images, sys.argv[2])\n"
    )
    arguments = [sys.executable, "-c", program, str(tiny.folder(8)), str(tmp_path / "out.pt")]
    subprocess.run(arguments, check=True, cwd=ROOT, capture_output=True)
    ours = generate(load_variant(tiny.folder(8)), REQUEST)
    assert torch.equal(torch.load(tmp_path / "out.pt", weights_only=True), ours.latents)


@pytest.mark.parametrize("bits", [8, 4])
def test_saving_again_gives_the_same_tensors(tiny: TinyWorld, bits: int, tmp_path: Path) -> None:
    load_variant(tiny.folder(bits)).unet.save_pretrained(tmp_path / "unet")
    first, second = load_file(tiny.folder(bits) / WEIGHTS), load_file(tmp_path / WEIGHTS)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor.to(second[name].dtype), second[name]), name


def test_tensors_are_named_and_typed_as_documented(tiny: TinyWorld) -> None:
    tensors = load_file(tiny.folder(4) / WEIGHTS)
    layers = quantized_layers(load_variant(tiny.folder(4)).unet)
    assert len(layers) == tiny.cards[4].quantized_layers > 50
    for name, layer in layers.items():
        columns = int(torch.Size(layer.shape[1:]).numel())
        assert tensors[f"{name}.weight"].dtype == torch.uint8
        assert tuple(tensors[f"{name}.weight"].shape) == (layer.shape[0], (columns + 1) // 2)
        assert tensors[f"{name}.weight_scale"].dtype == torch.float32
        assert tensors[f"{name}.input_scale"].shape == tensors[f"{name}.input_zero_point"].shape == (1,)


def test_sizes_are_those_of_the_integers(tiny: TinyWorld) -> None:
    for bits, share in ((8, 0.31), (4, 0.19)):  # the tiny model keeps more in floating point than a real one
        card = tiny.cards[bits]
        assert card.denoiser_bytes < share * card.reference_denoiser_bytes


def test_half_precision_loading_keeps_scales_in_float32(tiny: TinyWorld) -> None:
    pipeline = DiffusionPipeline.from_pretrained(tiny.folder(8), torch_dtype=torch.bfloat16)
    assert all(layer.weight_scale.dtype == torch.float32 for layer in quantized_layers(pipeline.unet).values())


def test_dequantize_gives_floating_point_layers_back(tiny: TinyWorld) -> None:
    unet = load_variant(tiny.folder(8)).unet
    unet.dequantize()
    assert not quantized_layers(unet)
    assert torch.isfinite(unet(torch.randn(1, 4, 32, 32), 10, torch.randn(1, 16, 32)).sample).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mid_block.resnets.0.conv1.weight_scale": None}, "mid_block.resnets.0.conv1.weight_scale"),
        ({"mid_block.resnets.0.conv1.weight_scale": torch.ones(3)}, "mid_block.resnets.0.conv1.weight_scale"),
        ({"mid_block.resnets.0.conv1.weight": torch.zeros(64, 64, 3, 3)}, "float32, wanted torch.int8"),
        ({"mid_block.resnets.0.conv1.input_scale": torch.ones(2)}, "mid_block.resnets.0.conv1.input_scale"),
        ({"mid_block.resnets.0.conv1.input_scale": torch.tensor([0.0])}, "must be positive"),
        ({"mid_block.resnets.0.conv1.input_scale": torch.tensor([float("nan")])}, "must be positive"),
        ({"mid_block.resnets.0.conv1.weight_scale": torch.full((64,), torch.inf)}, "positive and finite"),
        ({"mid_block.resnets.0.conv1.input_zero_point": torch.tensor([300], dtype=torch.int32)}, "does not fit"),
        ({"mid_block.resnets.0.conv1.input_bits": torch.tensor([9], dtype=torch.uint8)}, "2 to 8"),
        ({"mid_block.resnets.0.conv1.extra": torch.zeros(1)}, "mid_block.resnets.0.conv1.extra"),
        ({"mid_block.extra": torch.zeros(1)}, "too many, the first is mid_block.extra"),
    ],
)
def test_a_wrong_tensor_is_named(copied: Path, change: dict[str, torch.Tensor | None], message: str) -> None:
    _rewrite(copied, change)
    with pytest.raises(CheckpointError, match=message.replace(".", r"\.")):
        load_unsigned(copied)


def test_a_newer_format_is_refused(copied: Path) -> None:
    config = json.loads((copied / "unet/config.json").read_text())
    config["quantization_config"]["format_version"] = 99
    (copied / "unet/config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="newer"):
        load_unsigned(copied)


def test_any_changed_byte_is_noticed(copied: Path) -> None:
    verify(copied)
    for name in (WEIGHTS, "vae/config.json", "tokenizer/tokenizer.json"):
        path = copied / name
        original = path.read_bytes()
        path.write_bytes(original[:-2] + bytes([original[-2] ^ 1]) + original[-1:])
        with pytest.raises(CheckpointError, match="digest"):
            load_variant(copied)
        path.write_bytes(original)
    (copied / WEIGHTS).write_bytes((copied / WEIGHTS).read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="digest"):
        load_variant(copied)


def test_files_that_could_run_code_and_links_are_refused(copied: Path) -> None:
    (copied / "unet" / "model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(CheckpointError, match=r"model\.bin"):
        digest(copied)
    (copied / "unet" / "model.bin").unlink()
    (copied / "link.json").symlink_to("/etc/hostname")
    with pytest.raises(CheckpointError, match="link"):
        digest(copied)


def test_a_missing_card_or_folder_is_said(tmp_path: Path, copied: Path) -> None:
    with pytest.raises(CheckpointError, match="card"):
        load_variant(tmp_path / "nothing")
    (copied / CARD).write_text("{}")
    with pytest.raises(CheckpointError, match="card"):
        read_card(copied)


def test_no_path_of_the_machine_is_stored(tiny: TinyWorld) -> None:
    for path in tiny.folder(8).rglob("*.json"):
        assert str(tiny.models.parent) not in path.read_text(), path
