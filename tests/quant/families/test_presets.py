"""All presets on every family: a checkpoint that plain diffusers draws the same picture from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from contract.catalogue import ModelDescription
from contract.places import ROOT
from contract.recipe import Recipe, read_presets
from quant.checkpoints.layout import quantized_layers
from quant.checkpoints.pipelines import denoiser_of, load_reference, load_variant
from quant.errors import ModelError
from quant.quantization.job import QuantizationJob
from quant.quantization.quantize import quantize
from quant.sampling.generation import draw
from quant.sampling.prompts import Prompt
from quant.sampling.request import Sampling
from tests.support.tiny_families import FAMILY, SIZE, build

STEPS = 3
PROMPTS = STEPS + 1
"""One for every timestep: PNDM has one more of them than steps."""

PRESETS = read_presets(ROOT / "recipes")
CHEAP = ("minmax-w8a8", "pcr-w4a8", "eda-dm-w4a8", "s2p-v2-w4a8", "tfmq-w4a8")
"""One preset of a model in the quick tests, in the order of FAMILY: each stage has its turn."""


def _describe(name: str, folder: Path) -> ModelDescription:
    build(name).save_pretrained(folder)
    return ModelDescription(
        family=FAMILY[name], source=str(folder), width=SIZE, height=SIZE, max_width=SIZE, max_height=SIZE,
        num_inference_steps=STEPS, guidance_scale=3.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelDescription]:
    folder = tmp_path_factory.mktemp("families")
    return {name: _describe(name, folder / name) for name in FAMILY}


def shortened(recipe: Recipe) -> Recipe:
    """The same stages with few steps, prompts and iterations."""
    few = {"iterations": 2, "rounds": 1, "prompts": 2, "batch": 2, "validation_prompts": 1, "feature_prompts": 2,
           "samples": 4, "prompts_per_step": 2, "steps": 2}  # fmt: skip
    document: dict[str, Any] = recipe.model_dump(mode="json", exclude={"stages"})
    document["calibration"] |= {"num_prompts": PROMPTS, "num_inference_steps": STEPS}
    import quant.methods
    from quant.discovery import find

    complete = recipe.complete(find(quant.methods, recipe.method).STAGES)
    document["stages"] = {
        stage: {key: few.get(key, value) for key, value in option.items()}
        for stage, option in complete.model_dump(mode="json").items()
        if isinstance(option, dict)
    }
    return Recipe.model_validate(document)


def make(name: str, preset: str, described: dict[str, ModelDescription], folder: Path) -> None:
    """Makes a variant of a tiny model."""
    texts: list[Any] = [None] * 5 if name == "ddim" else ["abc", "xyz a", "q", "r", "s t"]
    prompts = [Prompt(str(i), text) for i, text in enumerate(texts)]
    job = QuantizationJob(
        name, described[name], shortened(PRESETS[preset]), "variant", prompts[:PROMPTS], prompts[PROMPTS:], "own"
    )
    quantize(job, folder, lambda *_: None)


def _check(name: str, folder: Path, described: dict[str, ModelDescription]) -> None:
    asked = [None] if name == "ddim" else ["abc"]
    sampling = Sampling(asked[0], seed=5, num_inference_steps=STEPS, guidance_scale=3.0, width=SIZE, height=SIZE)
    variant = load_variant(folder)
    assert len(quantized_layers(denoiser_of(variant))) > 5
    drawn = draw(variant, asked, [5], sampling)
    exact = draw(load_reference(described[name]), asked, [5], sampling)
    assert drawn.faults == [None] and not torch.equal(drawn.values, exact.values)


@pytest.mark.parametrize(("name", "preset"), zip(FAMILY, CHEAP, strict=True))
def test_a_preset_makes_a_variant(
    name: str, preset: str, described: dict[str, ModelDescription], tmp_path: Path
) -> None:
    make(name, preset, described, tmp_path / "variant")
    _check(name, tmp_path / "variant", described)


PLAIN = """
import inspect, sys, torch, quant
from diffusers import DiffusionPipeline

folder, out, steps, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
pipeline = DiffusionPipeline.from_pretrained(folder)
pipeline.set_progress_bar_config(disable=True)
generator = [torch.Generator().manual_seed(5)]
if "prompt" in inspect.signature(pipeline.__call__).parameters:
    extra = {"max_sequence_length": 12} if hasattr(pipeline, "tokenizer_3") else {}
    pictures = pipeline(["abc"], generator=generator, num_inference_steps=steps, guidance_scale=3.0, width=size,
                        height=size, output_type="pt", **extra).images.float()
else:
    pictures = pipeline(1, generator, num_inference_steps=steps, output_type="pt").images
torch.save(pictures, out)
"""


@pytest.mark.parametrize("name", FAMILY)
def test_plain_diffusers_draws_the_same_picture_in_another_process(
    name: str, described: dict[str, ModelDescription], tmp_path: Path
) -> None:
    make(name, "minmax-w8a8", described, tmp_path / "variant")
    asked = [None] if name == "ddim" else ["abc"]
    sampling = Sampling(asked[0], seed=5, num_inference_steps=STEPS, guidance_scale=3.0, width=SIZE, height=SIZE)
    drawn = draw(load_variant(tmp_path / "variant"), asked, [5], sampling)
    arguments = [str(tmp_path / "variant"), str(tmp_path / "out.pt"), str(STEPS), str(SIZE)]
    subprocess.run([sys.executable, "-c", PLAIN, *arguments], cwd=ROOT, check=True, capture_output=True)
    assert torch.equal(torch.load(tmp_path / "out.pt"), drawn.values)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", FAMILY)
def test_every_preset_makes_a_variant(name: str, described: dict[str, ModelDescription], tmp_path: Path) -> None:
    for preset in PRESETS:
        make(name, preset, described, tmp_path / preset)
        _check(name, tmp_path / preset, described)


@pytest.mark.parametrize(("name", "family"), [("sdxl", "stable_diffusion"), ("sd1", "stable_diffusion_xl")])
def test_a_folder_of_another_family_is_never_taken_for_one(
    name: str, family: str, described: dict[str, ModelDescription]
) -> None:
    with pytest.raises(ModelError, match=f"the family {family} has"):
        load_reference(described[name].model_copy(update={"family": family}))


def test_no_preset_names_a_family_or_a_layer() -> None:
    for name, recipe in PRESETS.items():
        assert recipe.family is None and all(layer.startswith("@") for layer in recipe.keep_float), name
