"""What the documents claim about the code, held against the code."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
from fastapi import FastAPI

from app.application import create_app
from app.errors import STATUS
from app.settings import GatewaySettings
from contract.kinds import JobKind
from quant.engine.processor import VARIABLE
from worker.settings import WorkerSettings

MACHINERY = {".git", ".github"}
DEPTH_OF = {"app": 2, "contract": 2, "facsimile": 2, "quant": 3, "shapes": 2, "worker": 2}
"""Folders are listed to this depth; those not named here are listed alone."""


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """The gateway's application; nothing in it is started."""
    settings = GatewaySettings(data_dir=tmp_path_factory.mktemp("data"), ui=False)
    return create_app(settings, "redis://127.0.0.1:1/0")


def test_the_map_names_every_folder_and_no_other(repository: Path) -> None:
    text = (repository / "docs/architecture.md").read_text(encoding="utf-8")
    section = text.split("\n## Folders\n")[1].split("\n## ")[0]
    named = set(re.findall(r"^\| `([^`]+)/` \|", section, flags=re.MULTILINE))
    assert named == set(_folders(repository))


def test_paths_named_in_the_map_exist(repository: Path) -> None:
    text = (repository / "docs/architecture.md").read_text(encoding="utf-8")
    tops = "|".join(re.escape(name) for name in _folders(repository) if "/" not in name)
    paths = set(re.findall(rf"`((?:{tops})/[\w./-]+)`", text)) | set(re.findall(r"`([\w-]+\.(?:toml|txt|yml))`", text))
    missing = [path for path in paths if not (repository / path).exists() and path != "models.toml"]
    assert not missing


def test_relative_links_lead_somewhere(repository: Path) -> None:
    pages = [*repository.glob("*.md"), *(repository / "docs").rglob("*.md")]
    broken = [
        f"{page.relative_to(repository)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not broken


def test_make_targets_named_in_documents_exist(repository: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    pages = [*repository.glob("*.md"), *(repository / "docs").rglob("*.md")]
    named = {
        name for page in pages for name in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text("utf-8"), re.MULTILINE)
    }
    assert named <= targets


def test_every_route_is_documented(application: FastAPI, repository: Path) -> None:
    text = _spelling((repository / "docs/http.md").read_text(encoding="utf-8"))
    paths = application.openapi()["paths"]
    routes = [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods]
    kinds = "|".join(f"{kind}s" for kind in JobKind)
    missing = [
        route
        for route in routes
        if not {_spelling(route), _spelling(re.sub(rf"/v1/({kinds})", "/v1/{kind}", route))} & set(text.split("\n"))
    ]
    assert not missing, f"docs/http.md does not say {missing}"


def test_every_error_code_is_documented(repository: Path) -> None:
    text = (repository / "docs/http.md").read_text(encoding="utf-8")
    missing = sorted(code for code in STATUS if f"`{code}`" not in text)
    assert not missing, f"docs/http.md does not explain {missing}"


def test_every_setting_is_documented(repository: Path) -> None:
    text = (repository / "docs/operations.md").read_text(encoding="utf-8")
    fields = set(GatewaySettings.model_fields) | set(WorkerSettings.model_fields)
    documented = set(re.findall(r"`FACSIMILE_([A-Z_]+)`", text))
    assert {field.upper() for field in fields} | {VARIABLE.removeprefix("FACSIMILE_")} == documented


def _spelling(text: str) -> str:
    """Every "METHOD /path" of a text on a line of its own, with `{}` for each parameter."""
    routes = re.findall(r"\b(GET|POST|PUT|PATCH|DELETE)[`| ]+(/(?:[\w{}./-]*[\w}/])?)", text)
    return "\n".join(f"{method} {re.sub(r'{[^}]*}', '{}', path)}" for method, path in routes)


def _folders(repository: Path) -> list[str]:
    """The folders that belong to the project, to their listed depth."""
    lines = (repository / ".gitignore").read_text(encoding="utf-8").split()
    ignored = [line.strip("/") for line in lines if not line.startswith("#")]
    found: list[str] = []
    for top in (path for path in repository.iterdir() if path.is_dir() and path.name not in MACHINERY):
        level = [top]
        for _ in range(DEPTH_OF.get(top.name, 1)):
            found += [path.relative_to(repository).as_posix() for path in level]
            level = [path for folder in level for path in folder.iterdir() if path.is_dir()]
    return [name for name in found if not any(fnmatch(part, mark) for part in name.split("/") for mark in ignored)]
