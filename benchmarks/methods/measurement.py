"""One arm from its recipe to its result: calibrate, evaluate, and write the figures down."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine
from benchmarks.methods.arms import identity_of
from benchmarks.methods.floors import Floors, known_floors
from benchmarks.methods.paired import Scores, paired_scores
from benchmarks.methods.task import Task
from benchmarks.methods.variant import Made, crowded, drop, make
from contract.card import Statistic
from contract.folders import replace_file
from contract.recipe import Recipe
from quant.cli.options import describe
from quant.fidelity.document import Document, MetricTraits
from quant.fidelity.evaluation.evaluation import evaluate
from quant.fidelity.evaluation.job import EvaluationJob
from quant.fidelity.statistics import plain
from quant.identity import machine as engine
from quant.sampling.progress import Progress
from quant.sampling.prompts import load_prompt_set, seen_prompts

QUESTION = "methods"
NAMED_WITH_BACKBONE = ("frechet", "kid", "image_cosine")
"""Metrics whose figures say nothing without the network that they look through."""

Json = dict[str, Any]


def measure(task: Task, on_progress: Progress) -> Json:
    """Makes the arm's variant, measures it and writes its result; what an earlier process finished of it is not done
    again. Raises what quantization and evaluation raise."""
    made = make(task, on_progress)
    floors = known_floors(task.places.results, task.protocol)
    job = _evaluation(task, made.folder, floors=floors is None)
    on_progress("evaluation", 0, 1)
    document = evaluate(job, task.places.cache, partial(_drawn, on_progress)).document
    scores = paired_scores(job, task.arm, task.places.cache)
    result = record(task, made, document, scores, floors or _drawn_floors(task, document))
    write(result, task.places.result(task.arm))
    if task.drop or crowded(made.folder):
        drop(made.folder)
    return result


def record(task: Task, made: Made, document: Document, paired: Scores, floors: Floors) -> Json:
    """The result as it is kept."""
    variant, protocol, sets = document.measured[task.arm], document.protocol, task.protocol.prompt_sets
    variant_json, traits = variant.model_dump(mode="json"), protocol.metrics
    return {
        "question": QUESTION,
        "arm": task.arm,
        "preset": task.preset,
        "bits": task.bits,
        "group": task.group,
        "date": machine.today(),
        "identity": identity_of(Recipe.model_validate(task.recipe).model_dump(mode="json"), task.stages),
        "recipe": task.recipe,
        "stages": task.stages,
        "protocol": task.protocol.model_dump(mode="json"),
        "seeds": {"calibration": task.recipe["calibration"]["seed"], "evaluation": task.protocol.seed},
        "prompt_sets": {name: protocol.prompt_sets[name].model_dump(mode="json") for name in sets},
        "metrics": {_named(key, traits): {"better": each.better} for key, each in traits.items()},
        "not_measured": protocol.not_measured,
        "figures": {name: _statistics(variant.prompt_sets[name], traits) for name in sets},
        "generalization": {
            name: _statistics(gap, traits) for name, gap in variant.generalization.gaps.items() if name in sets
        },
        "curves": variant_json["curves"],
        "floors": floors.figures,
        "floor_curves": floors.curves,
        "floors_drawn_with": floors.drawn_with,
        "reference": {name: _statistics(document.reference.prompt_sets[name], traits) for name in sets},
        "against_reference": [comparison.model_dump(mode="json") for comparison in document.comparisons],
        "paired": paired,
        "invalid_pictures": variant_json["invalid_pictures"],
        "calibration": {
            "seconds": made.card.calibration_seconds,
            "peak_bytes": made.card.calibration_peak_bytes,
            "disturbance": round(made.disturbance, 4),
        },
        "denoiser_bytes": made.card.denoiser_bytes,
        "card": variant_json["card"],
        "evaluation": document.times.model_dump(mode="json"),
        "code": {"calibrating": made.code},
        "machine": machine.machine(torch.get_num_threads()) | {"engine": engine("cpu")},
        "versions": {**made.card.versions, "python": platform.python_version()},
    }


def write(result: Json, path: Path) -> None:
    """Writes a result, complete or not at all."""
    replace_file(path, f"{_text(result)}\n".encode())


def _text(result: Json) -> str:
    """Indented, but for lists of numbers, which take a line each."""
    lists: dict[str, str] = {}

    def fold(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fold(each) for key, each in value.items()}
        if isinstance(value, list) and len(value) > 1 and all(isinstance(each, int | float | None) for each in value):
            lists[f"\ue000{len(lists)}\ue000"] = json.dumps(value, allow_nan=False)
            return f"\ue000{len(lists) - 1}\ue000"
        return [fold(each) for each in value] if isinstance(value, list) else value

    text = json.dumps(fold(result), indent=1, allow_nan=False, ensure_ascii=False)
    for mark, numbers in lists.items():
        text = text.replace(f'"{mark}"', numbers, 1)
    return text


def _drawn_floors(task: Task, document: Document) -> Floors:
    traits = document.protocol.metrics
    return Floors(
        {
            name: {each: _statistics(by_metric, traits) for each, by_metric in floor.prompt_sets.items()}
            for name, floor in document.floors.items()
        },
        {name: floor.model_dump(mode="json")["curves"] for name, floor in document.floors.items() if floor.curves},
        task.arm,
    )


def _evaluation(task: Task, folder: Path, *, floors: bool) -> EvaluationJob:
    protocol, places = task.protocol, task.places
    return EvaluationJob(
        model=protocol.model,
        description=describe(protocol.model, places.models),
        variants={task.arm: folder},
        prompt_sets=tuple(load_prompt_set(places.prompts, name, protocol.limit) for name in protocol.prompt_sets),
        seed=protocol.seed,
        seen=seen_prompts(places.prompts),
        backbones=places.backbones,
        floors=floors,
    )


def _drawn(on_progress: Progress, arm: str, done: int, total: int, note: str = "", /) -> None:
    on_progress(f"draw {arm}", done, total, note)


def _statistics(figures: Mapping[str, Statistic], traits: Mapping[str, MetricTraits]) -> Json:
    """A statistic per metric, without percentiles."""
    return {
        _named(key, traits): plain(statistic).model_dump(mode="json")
        for key, statistic in figures.items()
        if key in traits
    }


def _named(key: str, traits: Mapping[str, MetricTraits]) -> str:
    """The metric's name with its backbone, such as `frechet:judge`."""
    return f"{key}:{traits[key].backbone}" if key in NAMED_WITH_BACKBONE else key
