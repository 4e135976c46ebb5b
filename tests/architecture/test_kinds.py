"""Where the kinds of job are told apart: in the table and in the files that architecture.md names, nowhere else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.kinds import KINDS, JobKind


def test_only_the_files_of_the_map_know_one_kind_from_another(sources: list[Path], repository: Path) -> None:
    names = {kind: _names(kind) for kind in JobKind}
    knowing = {
        _place(path.relative_to(repository).as_posix(), kind)
        for path in sources
        for kind in JobKind
        if names[kind] & set(_mentioned(path))
    }
    assert knowing - {"app/ui/"} == _mapped(repository)


@pytest.mark.parametrize("kind", list(JobKind))
def test_a_kind_has_an_entry_a_route_and_a_job(kind: JobKind, repository: Path) -> None:
    assert KINDS[kind].name == kind
    assert (repository / f"app/routes/{kind}s.py").is_file()
    assert (repository / f"worker/jobs/{kind}.py").is_file()


def _names(kind: JobKind) -> set[str]:
    """What a file says that knows this kind: its member of the enumeration, or one of its models."""
    word = kind.value.title()
    return {f"JobKind.{kind.name}", f"{word}Payload", f"{word}Result", f"{word}Body"}


def _mentioned(path: Path) -> Iterator[str]:
    """The names that a file defines or uses, those of members with their class."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.ClassDef):
            yield node.name


def _place(path: str, kind: JobKind) -> str:
    """A file as the map has it: the folder where it is the kind's own file there, or the page's."""
    if path in (f"app/routes/{kind}s.py", f"worker/jobs/{kind}.py") or path.startswith("app/ui/"):
        return f"{path.rpartition('/')[0]}/"
    return path


def _mapped(repository: Path) -> set[str]:
    """The files and folders that the map names for who adds a kind."""
    text = (repository / "docs/architecture.md").read_text(encoding="utf-8")
    row = re.search(r"^\| a kind of job \|(.*)\|$", text, flags=re.MULTILINE)
    assert row is not None
    return set(re.findall(r"`([\w./]+)`", row[1]))
