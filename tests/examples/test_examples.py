"""Every script of `examples/` runs as its first lines say, on small models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from contract.places import ROOT
from tests.support.tiny_families import build

SCRIPTS = {path.stem for path in (ROOT / "examples").glob("*.py")}


def _run(name: str, *arguments: object) -> str:
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    build("sd1").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def quantized(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What the first script writes, and what it says."""
    folder = tmp_path_factory.mktemp("variant")
    return folder, _run("quantize_a_pipeline", model, folder)


def test_a_pipeline_is_quantized_in_ten_lines(quantized: tuple[Path, str]) -> None:
    folder, said = quantized
    assert (folder / "model_index.json").is_file()
    assert 20 < float(said.split()[1]) < 80
    lines = (ROOT / "examples" / "quantize_a_pipeline.py").read_text().split('"""')[2].splitlines()
    assert len([line for line in lines if line and not line.startswith(("import", "from"))]) <= 10


def test_two_variants_are_compared(model: Path, quantized: tuple[Path, str]) -> None:
    first, second = _run("compare_two_variants", model, quantized[0], quantized[0]).splitlines()
    assert first == second and "16 pictures" in first


def test_a_metric_is_added(model: Path, quantized: tuple[Path, str]) -> None:
    said = dict(line.split(": ") for line in _run("add_a_metric", model, quantized[0]).splitlines())
    assert said.keys() == {"psnr", "edge_error"} and 0 < float(said["edge_error"]) < 0.1


def test_no_script_is_left_out() -> None:
    assert {"quantize_a_pipeline", "compare_two_variants", "add_a_metric", "ask_the_service"} == SCRIPTS
