"""The variant of an arm: made once, kept until it is dropped, and made anew when what it depends on has changed."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from benchmarks.disturbance import disturbance, now
from benchmarks.methods.task import Task
from contract.card import Card
from contract.recipe import Recipe
from quant.checkpoints.card_file import read_card
from quant.cli.options import describe
from quant.errors import CheckpointError
from quant.identity import code_digest
from quant.quantization.job import QuantizationJob
from quant.quantization.quantize import quantize
from quant.sampling.progress import Progress
from quant.sampling.prompts import load_prompts

JOURNALS = ".journals"
KEPT_FREE = 5 * 10**9
"""Bytes of disk that must stay free for a variant to be kept after its evaluation."""


@dataclass(frozen=True)
class Made:
    """A variant's folder and card, the code that calibrated it, and the share of the machine that others took then."""

    folder: Path
    card: Card
    code: str
    disturbance: float


def make(task: Task, on_progress: Progress) -> Made:
    """The variant of an arm, calibrated now unless it is there. Raises what quantization raises."""
    job = _job(task)
    folder = task.places.variants / task.arm
    identity, code = job.identity(), code_digest()
    kept = _kept(folder, identity)
    if kept is not None:
        return Made(folder, kept[0], code, kept[1])
    drop(folder)
    staging = folder.with_name(f".{task.arm}.staging")
    shutil.rmtree(staging, ignore_errors=True)
    before = now(os.getpid())
    card = quantize(job, staging, on_progress, task.places.variants / JOURNALS)
    others = disturbance(before, now(os.getpid()))
    _note(folder).write_text(json.dumps({"identity": identity, "disturbance": others}) + "\n", encoding="utf-8")
    staging.rename(folder)
    return Made(folder, card, code, others)


def drop(folder: Path) -> None:
    """Removes a variant."""
    _note(folder).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def crowded(folder: Path) -> bool:
    """Whether there is too little disk left to keep a variant."""
    return shutil.disk_usage(folder.parent).free < KEPT_FREE


def _job(task: Task) -> QuantizationJob:
    protocol, prompts = task.protocol, task.places.prompts
    recipe = Recipe.model_validate(task.recipe)
    name = protocol.calibrate_on
    return QuantizationJob(
        model=protocol.model,
        description=describe(protocol.model, task.places.models),
        recipe=recipe,
        variant=task.arm,
        calibration=load_prompts(prompts, name, "calibration", recipe.calibration.num_prompts),
        held_out=load_prompts(prompts, name, "validation", protocol.held_out),
        prompt_set=f"{name}/validation",
    )


def _kept(folder: Path, identity: str) -> tuple[Card, float] | None:
    """Card and disturbance of a variant that an earlier process made of the same."""
    try:
        noted = json.loads(_note(folder).read_text(encoding="utf-8"))
        return (read_card(folder), noted["disturbance"]) if noted["identity"] == identity else None
    except (OSError, ValueError, KeyError, CheckpointError):
        return None


def _note(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")
