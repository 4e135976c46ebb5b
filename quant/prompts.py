"""Prompt sets: JSON lines of id, prompt and, where they are known, the attributes that the picture must show.

A set is a folder (`prompts/shapes-plain/`) with one file per split (`calibration.jsonl`, `validation.jsonl`,
`test.jsonl`); no prompt is in two splits."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from pathlib import Path

from quant.errors import PromptSetError

SPLITS = ("calibration", "validation", "test")


@dataclass(frozen=True)
class Prompt:
    """A prompt with its id; `attributes` is empty where the truth is not known."""

    id: str
    text: str
    attributes: dict[str, str] = field(default_factory=dict)


def prompt_sets(folder: Path) -> tuple[str, ...]:
    """The names of the sets in a folder."""
    return tuple(sorted(path.parent.name for path in folder.glob("*/test.jsonl")))


def load_prompts(folder: Path, name: str, split: str, limit: int | None = None) -> list[Prompt]:
    """The first `limit` prompts of a set's split. The name of a split instead of a set means that split of all sets,
    taken in turn. Raises PromptSetError for a name that is not there, and for a malformed or empty file."""
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


def prompts_from_texts(texts: list[str]) -> list[Prompt]:
    """Prompts of a user's own; an id is the sha256 of the text. Raises PromptSetError when one is empty or repeated."""
    prompts = [Prompt(hashlib.sha256(text.encode()).hexdigest()[:16], text) for text in texts]
    if not prompts or any(not prompt.text.strip() for prompt in prompts):
        raise PromptSetError("a prompt list holds at least one prompt, and none that is empty")
    if len({prompt.id for prompt in prompts}) < len(prompts):
        raise PromptSetError("a prompt list must not repeat a prompt")
    return prompts


def _read(path: Path) -> list[Prompt]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PromptSetError(f"prompt file {path}: {error}") from error
    return [_prompt(line, f"prompt file {path}, line {number}") for number, line in enumerate(lines, start=1)]


def _prompt(line: str, place: str) -> Prompt:
    try:
        row = json.loads(line)
        return Prompt(str(row["id"]), str(row["prompt"]), dict(row.get("attributes", {})))
    except (ValueError, KeyError, TypeError) as error:
        raise PromptSetError(f"{place}: {error!r}") from error
