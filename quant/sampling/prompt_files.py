"""Prompt files of others: COCO captions, Stable-Diffusion-Prompts, JSON lines and plain text, told apart by ending.

| ending | what is read |
|---|---|
| `.json` | COCO captions (`images`, `annotations`): for every image the caption with the lowest annotation id |
| `.parquet`, `.csv` | a column `Prompt` or `prompt`, as in Stable-Diffusion-Prompts |
| `.jsonl` | one object a line with `prompt`, and `id` and `attributes` if there are any |
| `.txt` | one prompt a line |"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from quant.errors import PromptSetError

Row = tuple[str, str | None, dict[str, str]]
"""An id ("" for none), a text (None where there is none), and the attributes."""

_COLUMNS = ("prompt", "Prompt")


def read_rows(path: Path) -> list[Row]:
    """All rows of a prompt file. Raises PromptSetError for another ending and for a malformed file."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise PromptSetError(f"prompt file {path.name}: the ending must be one of {', '.join(_READERS)}")
    try:
        return list(reader(path))
    except PromptSetError:
        raise
    except Exception as error:  # each format's reader raises its own kinds
        raise PromptSetError(f"prompt file {path}: {type(error).__name__}: {error}") from error


def read_lines(path: Path) -> list[str]:
    """The lines of a file in UTF-8, with or without a byte order mark. A line ends at a line feed and nowhere else: a
    prompt may hold any other separator. A carriage return before it, and what follows the last one if it is empty, do
    not count. Raises OSError and UnicodeDecodeError."""
    lines = path.read_bytes().decode("utf-8-sig").split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


def _coco(path: Path) -> Iterator[Row]:
    captions = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(captions, dict) or not isinstance(captions.get("annotations"), list):
        raise PromptSetError(f"prompt file {path} holds no COCO captions: an object with a list `annotations`")
    by_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in captions.get("images", [])}
    for caption in captions["annotations"]:
        by_image.setdefault(caption["image_id"], []).append(caption)
    for image, candidates in sorted(by_image.items()):
        written = sorted((each for each in candidates if each.get("caption")), key=lambda each: each.get("id", 0))
        yield f"coco-{image}", written[0]["caption"] if written else None, {}


def _csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        column = _column(reader.fieldnames or (), path)
        for row in reader:
            yield "", row[column], {}


def _parquet(path: Path) -> Iterator[Row]:
    from pyarrow import parquet

    table = parquet.read_table(path)
    for text in table.column(_column(table.column_names, path)).to_pylist():
        yield "", text, {}


def _json_lines(path: Path) -> Iterator[Row]:
    for number, line in enumerate(read_lines(path), start=1):
        row = json.loads(line) if line.strip() else None
        if not isinstance(row, dict):
            raise PromptSetError(f"prompt file {path}, line {number}: not a JSON object")
        text = row[_column(row, path)]
        yield str(row.get("id", "")), text if isinstance(text, str) else None, dict(row.get("attributes", {}))


def _text(path: Path) -> Iterator[Row]:
    for line in read_lines(path):
        yield "", line, {}


def _column(names: Any, path: Path) -> str:
    found = next((name for name in _COLUMNS if name in names), None)
    if found is None:
        raise PromptSetError(f"prompt file {path} has no column `prompt` or `Prompt`")
    return found


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".json": _coco,
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".parquet": _parquet,
    ".txt": _text,
}
