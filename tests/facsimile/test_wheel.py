"""The wheel, installed outside of the checkout: it works, and writes nothing where it is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from contract.places import ROOT
from contract.release import RELEASE
from tests.support.tiny_families import build

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

VERBS = """
import sys, facsimile
variant = facsimile.quantize(sys.argv[1], sys.argv[2], size=(32, 32))
facsimile.save(variant, sys.argv[3])
print(facsimile.compare(sys.argv[1], sys.argv[3], "a b c", num_inference_steps=2)["psnr"].mean, facsimile.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, as the build leaves files beside the sources."""
    source, out = tmp_path_factory.mktemp("source") / "checkout", tmp_path_factory.mktemp("wheel")
    left_out = shutil.ignore_patterns(".git", ".venv*", "data", "runs", "build", "*.egg-info", "models", "__pycache__")
    shutil.copytree(ROOT, source, ignore=left_out)
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(folder), str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def _run(installed: Path, home: Path, *command: object) -> str:
    home.mkdir(exist_ok=True)
    user = {f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in ("DATA", "CACHE")}
    environment = {**os.environ, "PYTHONPATH": str(installed), "HOME": str(home), **user}
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=home, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _tree(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_it_holds_the_library_and_not_the_service(wheel: Path) -> None:
    assert wheel.name == f"facsimile_diffusion-{RELEASE}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"contract", "facsimile", "quant"}
    assert {f"{package}/py.typed" for package in ("contract", "facsimile", "quant")} <= set(names)
    for folder in ("recipes", "prompts"):
        ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*") if path.is_file()}
        assert {name.removeprefix("facsimile/shipped/") for name in names if f"/shipped/{folder}/" in name} == ours
    assert any(name.startswith("quant/engine/native/source/") for name in names)
    assert any(name.startswith("quant/fidelity/report/templates/") for name in names)


def test_it_works_and_leaves_what_is_installed_as_it_is(installed: Path, tmp_path: Path) -> None:
    before, home = _tree(installed), tmp_path / "home"
    assert "quantize" in _run(installed, home, "-m", "facsimile", "--help")
    build("sd1").save_pretrained(tmp_path / "model")
    recipe = tmp_path / "own.toml"
    recipe.write_text('method = "minmax"\n[calibration]\nnum_prompts = 2\nnum_inference_steps = 2\n')
    psnr, place = _run(installed, home, "-c", VERBS, tmp_path / "model", recipe, tmp_path / "variant").split()
    assert float(psnr) > 20 and Path(place).is_relative_to(installed)
    made = _run(
        installed, home, "-m", "facsimile", "quantize", tmp_path / "model", "--recipe", recipe, "--limit", 2, "--json"
    )
    assert json.loads(made)["variant"] == "w8a8-minmax"
    assert (home / "data/facsimile/variants/model/w8a8-minmax/card.json").is_file()
    library = "from quant.engine.native.library import library_path; print(library_path())"
    assert _run(installed, home, "-c", library).startswith(str(home / "cache/facsimile/kernels"))
    assert _tree(installed) == before


def test_a_command_without_a_models_file_says_which_one_is_missing(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed), "XDG_DATA_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "facsimile", "generate", "nothing", "--prompt", "x"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and str(tmp_path / "facsimile/models/models.toml") in "".join(done.stderr.split("\n"))
