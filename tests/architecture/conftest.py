"""What the architecture tests look at: the repository and its Python files."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.places import ROOT

PACKAGES = ("contract", "app", "worker", "quant", "facsimile", "shapes")


@pytest.fixture(scope="session")
def repository() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def packages(repository: Path) -> list[Path]:
    """The folders of the six packages."""
    return [repository / name for name in PACKAGES]


@pytest.fixture(scope="session")
def sources(packages: list[Path]) -> list[Path]:
    """Every Python file of the six packages."""
    return sorted(path for package in packages for path in package.rglob("*.py"))


@pytest.fixture(scope="session")
def python_files(repository: Path, sources: list[Path]) -> list[Path]:
    """Every Python file of the repository, tests and benchmarks included."""
    others = (path for name in ("tests", "benchmarks", "examples") for path in (repository / name).rglob("*.py"))
    return sources + sorted(others)
