"""The shipped models do what their card says, on a small sample; `shapes.evaluate` is the full measure."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.catalogue import ModelDescription, read_models
from contract.places import ROOT
from contract.recipe import read_presets
from quant.checkpoints.checkpoint import verify
from quant.checkpoints.pipelines import load_reference, load_variant
from quant.fidelity.backbones.judge import SHIPPED
from quant.fidelity.consistency import consistency
from quant.fidelity.networks.judge import load_judge
from quant.quantization.resolution import Resolution
from quant.sampling.progress import silent
from quant.sampling.prompts import load_prompts
from quant.sampling.request import Sampling
from shapes.evaluate import agreement, draw, judge_fresh_renders

VARIANTS = sorted((ROOT / "models" / "variants" / "shapes-sd").iterdir())
STEPS = Sampling("", num_inference_steps=25, guidance_scale=4.0)


@pytest.fixture(scope="module")
def description() -> ModelDescription:
    return read_models(ROOT / "models" / "models.toml")["shapes-sd"]


def test_the_folder_is_small() -> None:
    files = [path for path in (ROOT / "models" / "shapes-sd").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 48e6


def test_judge_and_autoencoder_on_fresh_renders(description: ModelDescription) -> None:
    accuracy, decibels = judge_fresh_renders(load_reference(description), load_judge(SHIPPED).float(), 96)
    assert min(accuracy.values()) >= 0.95, accuracy  # the full measure asks for 0.98 of 1,024
    assert decibels >= 28.0


def test_pictures_show_what_prompts_say(description: ModelDescription) -> None:
    pipeline, judge = load_reference(description), load_judge(SHIPPED).float()
    prompts = load_prompts(ROOT / "prompts", "shapes-plain", "test", 16)
    _, answers = draw(pipeline, judge, prompts, STEPS)
    truths = [prompt.attributes for prompt in prompts]
    right = agreement(answers, truths)["all_attributes"]
    shuffled = agreement(answers, truths[1:] + truths[:1])["all_attributes"]
    assert right >= 0.5 and shuffled <= 0.1  # 16 prompts: the full measure asks for 0.8 of 256


@pytest.mark.parametrize("folder", VARIANTS, ids=lambda folder: folder.name)
def test_shipped_variants_are_what_their_cards_say(folder: Path, description: ModelDescription) -> None:
    card = verify(folder)
    assert (card.model, card.variant) == ("shapes-sd", folder.name)
    presets = read_presets(ROOT / "recipes").values()
    assert card.recipe in [Resolution(description).of(preset) for preset in presets]
    assert not set(card.calibration_prompt_ids) & set(card.report.prompt_ids)
    by_id = {prompt.id: prompt for prompt in load_prompts(ROOT / "prompts", "shapes-plain", "validation")}
    prompts = [by_id[name] for name in card.report.prompt_ids[:8]]
    sampling = Sampling(
        "", seed=card.report.seed, num_inference_steps=card.signature.num_inference_steps,
        guidance_scale=card.signature.guidance_scale, width=card.signature.width, height=card.signature.height,
    )  # fmt: skip
    pipelines = {"variant": load_variant(folder)}
    measured = consistency(load_reference(description), pipelines, prompts, sampling, ("psnr",), silent)
    mean, reported = measured["variant"]["psnr"].mean, card.report.metrics["psnr"].mean
    assert mean is not None and reported is not None and abs(mean - reported) < 6.0  # 8 of the report's 64


def test_both_weight_widths_are_shipped() -> None:
    assert [folder.name for folder in VARIANTS] == ["w4a8-minmax", "w8a8-minmax"]
