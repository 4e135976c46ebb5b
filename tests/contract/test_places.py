"""Where files are, in a checkout and in an installed library."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contract.places import ROOT, cache_folder, data_folder, installed, models_folder, shipped

SAYS = """
from contract import places
print(places.installed(), places.shipped("recipes"))
"""


def test_a_checkout_has_everything_beside_the_packages() -> None:
    assert not installed() and (ROOT / "pyproject.toml").is_file()
    assert (shipped("recipes") / "minmax-w8a8.toml").is_file()
    assert (shipped("prompts") / "shapes-plain" / "test.jsonl").is_file()
    assert (models_folder() / "models.toml").is_file()
    assert data_folder() == cache_folder() == ROOT / "data"


@pytest.mark.parametrize("packed", [False, True])
def test_a_library_has_recipes_inside_it(packed: bool, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "contract", tmp_path / "contract", ignore=shutil.ignore_patterns("__pycache__"))
    if packed:
        (tmp_path / "facsimile" / "shipped" / "recipes").mkdir(parents=True)
    said = subprocess.run([sys.executable, "-c", SAYS], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    folder = tmp_path / "facsimile" / "shipped" / "recipes" if packed else tmp_path / "recipes"
    assert said.split() == [str(packed), str(folder)]
