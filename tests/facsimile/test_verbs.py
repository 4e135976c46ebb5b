"""The verbs, as a user of diffusers meets them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

import facsimile
from contract.errors import RecipeError
from contract.recipe import Recipe
from quant.errors import CheckpointError, EvaluationError, ModelError, PromptSetError, RecipeMismatch
from quant.layers.layer import QuantizedLayer
from tests.facsimile.conftest import PROMPTS, STEPS
from tests.support.tiny_families import SIZE, build, diffusers_pictures


def _pictures(pipeline: Any, asked: list[str] | None) -> torch.Tensor:
    return diffusers_pictures(pipeline, asked, [3, 4], STEPS, 3.0)


@pytest.fixture(scope="module")
def variant(reference: Any, recipe: Recipe, asked: list[str] | None) -> Any:
    return facsimile.quantize(reference, recipe, asked)


@pytest.fixture(scope="module")
def saved(variant: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "variant"
    facsimile.save(variant, folder)
    return folder


def test_a_quantized_copy_multiplies_integers_and_the_original_is_left_alone(
    reference: Any, variant: Any, kind: str, asked: list[str] | None
) -> None:
    layers = [module for module in variant.unet.modules() if isinstance(module, QuantizedLayer)]
    assert type(variant) is type(reference) and len(layers) > 10
    fresh = build(kind).unet.state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in reference.unet.state_dict().items())
    assert 0 < (_pictures(variant, asked) - _pictures(reference, asked)).abs().mean() < 0.05


def test_what_was_saved_draws_what_was_quantized_whoever_loads_it(
    variant: Any, saved: Path, asked: list[str] | None
) -> None:
    wanted = _pictures(variant, asked)
    assert torch.equal(_pictures(facsimile.load(saved), asked), wanted)
    plain = DiffusionPipeline.from_pretrained(saved)
    plain.set_progress_bar_config(disable=True)
    assert torch.equal(_pictures(plain, asked), wanted)


def test_saving_what_was_loaded_writes_the_same_weights(saved: Path, tmp_path: Path) -> None:
    facsimile.save(facsimile.load(saved), tmp_path / "again")
    files = sorted(path.relative_to(saved) for path in saved.rglob("*.safetensors"))
    assert files
    assert all((saved / file).read_bytes() == (tmp_path / "again" / file).read_bytes() for file in files)


def test_saving_changes_no_dtype(variant: Any, saved: Path) -> None:
    assert {parameter.dtype for parameter in variant.unet.parameters()} == {torch.float32}


def test_compare_measures_from_the_same_noise(reference: Any, saved: Path, asked: list[str] | None) -> None:
    found = facsimile.compare(reference, saved, asked, num_images=2, num_inference_steps=STEPS, guidance_scale=3.0)
    assert found["psnr"].count == 2 * len(asked or [None]) and (found["psnr"].mean or 0) > 25
    low, high = found["ssim"].ci95 or (1, 0)
    assert 0.9 < low <= (found["ssim"].mean or 0) <= high < 1
    same = facsimile.compare(reference, reference, asked, num_inference_steps=STEPS)
    assert same["latent_mse"].mean == 0 and same["psnr"].mean is None and same["psnr"].reason


def test_quantize_takes_a_folder_a_preset_and_a_file(tmp_path: Path) -> None:
    build("sd1").save_pretrained(tmp_path / "model")
    told: list[str] = []
    variant = facsimile.quantize(
        tmp_path / "model",
        "minmax-w4a8",
        PROMPTS,
        on_progress=lambda stage, done, total, note="": told.append(stage),
    )
    assert {layer.weight_bits for layer in _layers(variant)} == {4} and told
    own = tmp_path / "own.toml"
    own.write_text('method = "minmax"\nweight_bits = 6\n[calibration]\nnum_prompts = 2\nnum_inference_steps = 2\n')
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS))
    variant = facsimile.quantize(str(tmp_path / "model"), str(own), str(prompts), size=(SIZE, SIZE))
    assert {layer.weight_bits for layer in _layers(variant)} == {6}


def _layers(pipeline: Any) -> list[Any]:
    return [module for module in pipeline.unet.modules() if isinstance(module, QuantizedLayer)]


def test_load_gives_a_floating_point_pipeline_too(reference: Any, tmp_path: Path, asked: list[str] | None) -> None:
    reference.save_pretrained(tmp_path / "model")
    loaded = facsimile.load(tmp_path / "model")
    assert torch.equal(_pictures(loaded, asked), _pictures(reference, asked))
    assert next(facsimile.load(tmp_path / "model", "bfloat16").unet.parameters()).dtype == torch.bfloat16


def test_a_damaged_checkpoint_is_refused_by_name(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "cut")
    weights = next((tmp_path / "cut" / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cut"):
        facsimile.load(tmp_path / "cut")


def test_what_cannot_be_done_is_said(reference: Any, variant: Any, recipe: Recipe, kind: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there are best-w3a8"):
        facsimile.quantize(reference, "minmax-w9a9")
    with pytest.raises(RecipeMismatch, match="quantized already"):
        facsimile.quantize(variant, recipe)
    with pytest.raises(CheckpointError, match="save_pretrained"):
        facsimile.save(reference, tmp_path / "reference")
    with pytest.raises(ModelError, match="neither a diffusers folder"):
        facsimile.load(tmp_path / "nothing")
    with pytest.raises(EvaluationError, match=r"facsimile\.bench"):
        facsimile.compare(reference, variant, metrics=["frechet"])
    if kind == "ddim":
        with pytest.raises(RecipeMismatch, match="takes no prompt"):
            facsimile.quantize(reference, recipe, PROMPTS)
    else:
        with pytest.raises(PromptSetError, match="must not repeat"):
            facsimile.quantize(reference, recipe, ["a cat", "a cat"])


def test_a_model_that_no_family_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline", "_diffusers_version": "0.42.1"}')
    with pytest.raises(ModelError, match="FluxPipeline: the families are ddim"):
        facsimile.load(tmp_path)
