"""Results on disk and on the console, and the options that all benchmarks share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.shape import ROOT

RESULTS = ROOT / "benchmarks" / "results"

stdout = Console(highlight=False)
stderr = Console(stderr=True, highlight=False)

Lock = Annotated[Path | None, typer.Option(help="file that is locked while anything is timed")]
Keep = Annotated[bool, typer.Option("--save", help="write the result to benchmarks/results")]
AsJson = Annotated[bool, typer.Option("--json", help="print the result as JSON")]


def save(result: dict[str, Any], name: str) -> Path:
    """Writes a result to the folder that the report reads."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return path


def read(question: str, folder: Path = RESULTS) -> list[dict[str, Any]]:
    """All results that answer a question, by the names of their files."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return [result for result in found if result.get("question") == question]
