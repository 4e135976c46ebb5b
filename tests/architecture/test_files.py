"""House rules that hold for every file: short, named after a thing, silent, documented."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

MAX_LINES = 400
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}


def test_no_file_is_longer_than_400_lines(python_files: list[Path], repository: Path) -> None:
    lengths = {path: path.read_text(encoding="utf-8").count("\n") for path in python_files}
    too_long = {str(path.relative_to(repository)): lines for path, lines in lengths.items() if lines > MAX_LINES}
    assert not too_long, f"longer than {MAX_LINES} lines, so more than one noun: {too_long}"


def test_no_file_or_folder_has_an_empty_name(python_files: list[Path], repository: Path) -> None:
    relative = [path.relative_to(repository) for path in python_files]
    nameless = [str(path) for path in relative if _words(path) & EMPTY_NAMES]
    assert not nameless, f"these names say nothing about the contents: {nameless}"


def test_nothing_prints(sources: list[Path], repository: Path) -> None:
    printing = [
        f"{path.relative_to(repository)}:{node.lineno}"
        for path in sources
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not printing, f"use structlog, or rich's console on a command line: {printing}"


def test_modules_and_public_functions_are_documented(sources: list[Path], repository: Path) -> None:
    undocumented = [
        f"{path.relative_to(repository)}: {name}"
        for path in sources
        for name in _undocumented(
            path, functions=path.relative_to(repository).parts[0] in {"quant", "contract", "facsimile"}
        )
    ]
    assert not undocumented, "without a docstring:\n" + "\n".join(undocumented)


def _words(path: Path) -> set[str]:
    return {word for part in path.with_suffix("").parts for word in re.split(r"[_\W]+", part)}


def _undocumented(path: Path, *, functions: bool) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if tree.body and not ast.get_docstring(tree):
        yield "the module"
    if functions:
        yield from (
            node.name
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and not node.name.startswith("_")
            and not ast.get_docstring(node)
        )
