"""The deployment files, parsed. No container engine is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from contract.places import ROOT

Tree = dict[str, Any]


@pytest.fixture(scope="session")
def repository() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def compose(repository: Path) -> Tree:
    return yaml.safe_load((repository / "docker-compose.yml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def services(compose: Tree) -> dict[str, Tree]:
    return compose["services"]


@pytest.fixture(scope="session")
def overrides(repository: Path) -> dict[str, Tree]:
    """The compose files in deploy/, by file name."""
    files = (repository / "deploy").glob("docker-compose.*.yml")
    return {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in files}


@pytest.fixture(scope="session")
def stages(repository: Path) -> dict[str, list[str]]:
    """The instructions of every Dockerfile stage by the stage's name, those of the stages it builds upon included."""
    found: dict[str, list[str]] = {}
    lines = (repository / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    instructions = [line for line in lines if line.strip() and not line.startswith("#")]
    name = ""
    for words in (line.split() for line in instructions):
        if words[0] == "FROM":
            name = words[3]
            found[name] = list(found.get(words[1], []))
        elif name:
            found[name].append(" ".join(words))
    return found
