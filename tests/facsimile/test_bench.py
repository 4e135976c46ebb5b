"""`facsimile.bench`, on variants with cards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import facsimile
from contract.recipe import Recipe
from quant.checkpoints.pipelines import describe_folder
from quant.errors import CheckpointError, EvaluationError
from quant.quantization.job import QuantizationJob
from quant.quantization.quantize import quantize
from quant.sampling.prompts import prompts_from_texts
from tests.facsimile.conftest import PROMPTS, STEPS
from tests.support.tiny_families import SIZE, build


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    build("sd1").save_pretrained(folder)
    return folder


def test_a_report_has_variants_and_floors(model: Path, recipe: Recipe, tmp_path: Path) -> None:
    job = QuantizationJob(
        model="tiny",
        description=describe_folder(model),
        recipe=recipe,
        variant="w8a8",
        calibration=prompts_from_texts(PROMPTS),
        held_out=prompts_from_texts(["a ring"]),
        prompt_set="own",
    )
    card = quantize(job, tmp_path / "w8a8", lambda *_: None)
    assert (card.signature.width, card.signature.height) == (SIZE, SIZE)
    prompts = tmp_path / "own.txt"
    prompts.write_text("two cones\na green box\na torus\n")
    variants = {"mine": tmp_path / "w8a8"}
    report = facsimile.bench(
        model, variants, str(prompts), metrics=["psnr", "ssim"], output=tmp_path / "report", cache=tmp_path / "cache"
    )
    mine = report.document.measured["mine"].prompt_sets["own"]
    assert (mine["psnr"].mean or 0.0) > 25 and mine["ssim"].count == 3
    assert report.document.floors.keys() >= {"bfloat16", "other_seeds"}
    assert report.document.protocol.sampling.num_inference_steps == STEPS
    written = json.loads((tmp_path / "report" / "report.json").read_text())
    assert written == report.document.model_dump(mode="json")


def test_what_cannot_be_measured_is_said(model: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="at least one variant"):
        facsimile.bench(model, {})
    with pytest.raises(CheckpointError, match="card of"):
        facsimile.bench(model, {"no-card": model}, cache=tmp_path)
