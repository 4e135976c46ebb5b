"""The arrows between the packages, and the promise that the gateway is light."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

EXTRA_OF = {
    "contract": None,
    "app": "gateway",
    "worker": "worker",
    "quant": "library",
    "facsimile": "library",
    "shapes": "library+train",
}
OWN = "facsimile-diffusion"
"""What an extra calls another one of ours: `facsimile-diffusion[library]`."""

BLOCK_AND_IMPORT = """
import sys

for heavy in ("torch", "diffusers", "transformers", "accelerate", "quant", "facsimile", "worker", "shapes"):
    sys.modules[heavy] = None  # importing it raises ImportError

import importlib, pkgutil
import app

for module in pkgutil.walk_packages(app.__path__, "app."):
    importlib.import_module(module.name)
"""


def test_import_rules_hold(repository: Path) -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")
    finished = subprocess.run([lint_imports, "--no-cache"], cwd=repository, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_gateway_starts_where_torch_cannot_be_imported(repository: Path) -> None:
    command = [sys.executable, "-c", BLOCK_AND_IMPORT]
    finished = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("package", EXTRA_OF)
def test_every_import_is_a_declared_dependency(package: str, repository: Path) -> None:
    """A process must not run on what another process' extra happens to install."""
    declared = _declared(repository, EXTRA_OF[package])
    if package == "quant":  # imported only where a GPU asks for it
        declared |= _declared(repository, "cuda")
    distributions = importlib.metadata.packages_distributions()
    undeclared = {
        name
        for path in (repository / package).rglob("*.py")
        for name in _imported(path)
        if name not in sys.stdlib_module_names
        and name not in EXTRA_OF
        and not {_canonical(each) for each in distributions.get(name, [name])} & declared
    }
    assert not undeclared, f"{package} imports what pyproject.toml does not name: {sorted(undeclared)}"


def test_every_dependency_is_pinned(repository: Path) -> None:
    lines = (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0] for line in lines if "==" in line and not line.startswith("#")}
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = set().union(*(_declared(repository, extra) for extra in project["optional-dependencies"]))
    missing = declared - pinned - {OWN}
    assert not missing, f"constraints.txt does not pin {sorted(missing)}"


def _declared(repository: Path, extra: str | None) -> set[str]:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = extra.split("+") if extra else []
    requirements = list(project["dependencies"])
    for name in extras:
        requirements += project["optional-dependencies"][name]
        extras += [each[len(OWN) + 1 : -1] for each in project["optional-dependencies"][name] if each.startswith(OWN)]
    return {_canonical(re.split(r"[^A-Za-z0-9_.-]", requirement)[0]) for requirement in requirements}


def _canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _imported(path: Path) -> Iterator[str]:
    """The top-level names of everything the file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]
