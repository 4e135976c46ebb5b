"""Identity: what was calibrated by other code, or on other files, is not taken for the same work."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contract.places import ROOT
from quant.identity import files_digest
from tests.support.toy_model import save_toy_model

INTERRUPTED = """
import sys
from pathlib import Path

from contract.catalogue import read_models
from contract.recipe import Recipe
from quant.sampling.prompts import prompts_from_texts
from quant.quantization.job import QuantizationJob
from quant.quantization.quantize import quantize

models, journal, out = map(Path, sys.argv[1:])
calibration = {"num_prompts": 1, "num_inference_steps": 2, "guidance_scale": 2.0}
recipe = Recipe.model_validate({"method": "minmax", "weight_bits": 8, "activation_bits": 8, "calibration": calibration})
toy, used, held_out = read_models(models)["toy"], prompts_from_texts(["red blob"]), prompts_from_texts(["blue bar"])
job = QuantizationJob("toy", toy, recipe, "v", used, held_out, "own")

def on_progress(stage, done, total, note=""):
    if stage == "save":
        sys.exit(f"interrupted after {sorted(path.name for path in journal.rglob('*.safetensors'))}")

quantize(job, out, on_progress, journal)
"""


@pytest.mark.parametrize(
    "changed",
    [
        "layers/linear.py",
        "engine/native/source/quantize.h",
        pytest.param("checkpoints/conversion.py", marks=pytest.mark.slow),
        pytest.param("errors.py", marks=pytest.mark.slow),
    ],
)
def test_another_code_does_not_go_on_with_what_a_killed_calibration_left(tmp_path: Path, changed: str) -> None:
    models = save_toy_model(tmp_path)
    for package in ("contract", "quant"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "build"))
    assert len(_journals(tmp_path, models)) == 1
    assert len(_journals(tmp_path, models)) == 1, "the same code goes on with it"
    with (tmp_path / "quant" / changed).open("a", encoding="utf-8") as file:
        file.write("\n")
    assert len(_journals(tmp_path, models)) == 2


def _journals(folder: Path, models: Path) -> list[Path]:
    command = [sys.executable, "-c", INTERRUPTED, str(models), str(folder / "journal"), str(folder / "out")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert "interrupted after ['ranges" in done.stderr, done.stderr
    return list((folder / "journal").glob("*/"))


def test_a_digest_of_files_sees_names_and_contents_and_no_order(tmp_path: Path) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    first.write_text("one")
    second.write_text("two")
    before = files_digest([first, second], tmp_path)
    assert files_digest([second, first], tmp_path) == before
    first.write_text("two")
    second.write_text("one")
    assert files_digest([first, second], tmp_path) != before
    elsewhere = tmp_path / "copy"
    elsewhere.mkdir()
    for path in (first, second):
        shutil.copy(path, elsewhere)
    assert files_digest(elsewhere.iterdir(), elsewhere) == files_digest([first, second], tmp_path)
