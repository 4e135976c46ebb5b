"""Prompt sets: JSON lines of id, prompt and, where they are known, the attributes that the picture must show.

A set is a folder (`prompts/shapes-plain/`) with one file per split (`calibration.jsonl`, `validation.jsonl`,
`test.jsonl`); no prompt is in two splits."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from pathlib import Path

from contract.catalogue import SEEDS
from quant.errors import PromptSetError
from quant.sampling.prompt_files import Row, read_lines, read_rows

SPLITS = ("calibration", "validation", "test")

OWN_SET = "shapes-plain"
"""The prompt set of the embedded model, and of everyone who names none."""

UNPROMPTED = 512
"""Pictures of a set without prompts, where nobody says how many."""


@dataclass(frozen=True)
class Prompt:
    """A prompt with its id; `attributes` is empty where the truth is not known. `text` is None where pictures are drawn
    without one, and told apart by their seeds."""

    id: str
    text: str | None
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PromptSet:
    """Prompts to measure on, none twice; `left_out` counts those of the source that are not among them, by reason."""

    name: str
    prompts: tuple[Prompt, ...]
    left_out: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SeenPrompt:
    """A prompt that calibrations are made or reported on, and the set that it is from."""

    prompt_set: str
    text: str | None


def seen_prompts(folder: Path) -> dict[str, SeenPrompt]:
    """All prompts of the splits for calibration and validation, by id."""
    return {
        prompt.id: SeenPrompt(name, prompt.text)
        for name in prompt_sets(folder)
        for split in ("calibration", "validation")
        if (folder / name / f"{split}.jsonl").is_file()
        for prompt in _read(folder / name / f"{split}.jsonl")
    }


def prompt_sets(folder: Path) -> tuple[str, ...]:
    """The names of the sets in a folder."""
    return tuple(sorted(path.parent.name for path in folder.glob("*/test.jsonl")))


def load_prompts(folder: Path, name: str, split: str, limit: int | None = None) -> list[Prompt]:
    """The first `limit` prompts of a set's split. The name of a split instead of a set means that split of all sets,
    taken in turn; `seeds` means as many pictures without a prompt, for models that take none. Raises PromptSetError for
    a name that is not there, and for a malformed or empty file."""
    if name == SEEDS:
        return without_prompts(split, limit or UNPROMPTED)
    if name in SPLITS:
        parts = [_read(folder / known / f"{name}.jsonl") for known in prompt_sets(folder)]
        prompts = [prompt for prompt in chain.from_iterable(zip_longest(*parts)) if prompt is not None]
    elif name in prompt_sets(folder):
        prompts = _read(folder / name / f"{split}.jsonl")
    else:
        known = ", ".join((*prompt_sets(folder), *SPLITS))
        raise PromptSetError(f"prompt set {name!r} is not there; there are {known}")
    if not prompts:
        raise PromptSetError(f"prompt set {name!r} has no prompts in its split {split!r}")
    return prompts[:limit]


def select_prompts(folder: Path, name: str, split: str, limit: int | None = None) -> list[Prompt]:
    """As `load_prompts`, where `name` may also be the path of a prompt file, which has no splits."""
    if name in (*prompt_sets(folder), *SPLITS, SEEDS) or not Path(name).is_file():
        return load_prompts(folder, name, split, limit)
    return list(load_prompt_set(folder, name, limit).prompts)


def without_prompts(split: str, count: int) -> list[Prompt]:
    """So many pictures without a prompt; their ids are their places in the split."""
    return [Prompt(f"{split}-{place:05}", None) for place in range(count)]


def load_prompt_set(folder: Path, name: str, limit: int | None = None) -> PromptSet:
    """The first `limit` prompts of a set's test split, or of the prompt file that `name` is the path of. Prompts that
    are empty, or repeat an earlier one, are left out and counted. Raises PromptSetError for a name that is neither, and
    when nothing is left."""
    if name == SEEDS:
        return PromptSet(SEEDS, tuple(without_prompts("test", limit or UNPROMPTED)))
    known = name in (*prompt_sets(folder), *SPLITS)
    if known or not Path(name).is_file():
        rows: list[Row] = [(p.id, p.text, p.attributes) for p in load_prompts(folder, name, "test")]
    else:
        rows = read_rows(Path(name))
    return _distinct(name if known else Path(name).stem, rows, limit)


def _distinct(name: str, rows: list[Row], limit: int | None) -> PromptSet:
    kept: dict[str, Prompt] = {}
    left_out: dict[str, int] = {}
    for given, text, attributes in rows:
        fault = _fault(text, kept)
        if fault is None and text is not None and (limit is None or len(kept) < limit):
            kept[text] = Prompt(given or _digest(text), text, attributes)
        elif fault is not None:
            left_out[fault] = left_out.get(fault, 0) + 1
    if not kept:
        raise PromptSetError(f"prompt set {name!r} has no prompts: {len(rows)} rows, left out {left_out or 'none'}")
    if len({prompt.id for prompt in kept.values()}) < len(kept):
        raise PromptSetError(f"prompt set {name!r} gives several prompts the same id")
    return PromptSet(name, tuple(kept.values()), left_out)


def _fault(text: str | None, kept: dict[str, Prompt]) -> str | None:
    if text is None or not text.strip():
        return "no text"
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        return "not valid Unicode"
    return "repeated" if text in kept else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def prompts_from_texts(texts: list[str]) -> list[Prompt]:
    """Prompts of a user's own; an id is the sha256 of the text. Raises PromptSetError when one is empty or repeated."""
    prompts = [Prompt(_digest(text), text) for text in texts]
    if not prompts or any(not text.strip() for text in texts):
        raise PromptSetError("a prompt list holds at least one prompt, and none that is empty")
    if len({prompt.id for prompt in prompts}) < len(prompts):
        raise PromptSetError("a prompt list must not repeat a prompt")
    return prompts


def _read(path: Path) -> list[Prompt]:
    try:
        lines = read_lines(path)
    except (OSError, UnicodeDecodeError) as error:
        raise PromptSetError(f"prompt file {path}: {error}") from error
    return [_prompt(line, f"prompt file {path}, line {number}") for number, line in enumerate(lines, start=1)]


def _prompt(line: str, place: str) -> Prompt:
    try:
        row = json.loads(line)
        return Prompt(str(row["id"]), str(row["prompt"]), dict(row.get("attributes", {})))
    except (ValueError, KeyError, TypeError) as error:
        raise PromptSetError(f"{place}: {error!r}") from error
