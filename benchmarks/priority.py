"""What do calibrations and evaluations cost those who draw pictures meanwhile?

`python -m benchmarks.priority --save`

A service of the embedded model draws pictures by POST, one after another: alone, then during an evaluation, then during
a calibration that passes every stage of `best-w4a8` with few prompts. A job must go on meanwhile: its steps are
counted."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.table import Table

from benchmarks.machine import machine, today
from benchmarks.result import AsJson, Keep, save, stdout
from benchmarks.served import MODEL, picture_seconds, service

VARIANT = "w8a8-minmax"
STEPS = 25
SHORT = {
    "calibration": {"num_prompts": 32, "num_inference_steps": 10, "guidance_scale": 4.0, "seed": 0},
    "stages": {
        "bits": {"kind": "greedy", "lifted_bits": 8, "extra_bits": 0.25, "prompts": 2, "steps": 2},
        "ranges": {"kind": "progressive", "observer": "minmax", "prompts": 4, "passes": 1},
        "bits_over_time": {"kind": "sensitive", "share": 0.04, "bits": 16, "prompts": 2},
        "fine_tuning": {
            "kind": "serial_to_parallel", "rounds": 1, "prompts": 8, "epochs": 1, "batch": 8,
            "weight_learning_rate": 0.008, "weight_scale_learning_rate": 0.001, "activation_learning_rate": 0.001,
            "gradient_clip": 1.0, "target": "student_state", "guided": True, "time_tables": True,
            "time_table_learning_rate": 0.0002, "feature_weight": 0.1, "freezing": "plateau", "validation_prompts": 4,
        },
    },
}  # fmt: skip
"""Of `best-w4a8`: every stage, each as short as it goes."""


def measure(seconds: float) -> dict[str, Any]:
    """Medians of a picture's seconds alone and by the stage of the job that runs beside it."""
    with tempfile.TemporaryDirectory() as folder, service(Path(folder), "float32") as http:
        alone = [picture_seconds(http, VARIANT, STEPS) for _ in range(20)]
        found = {"alone": _Beside({"": alone}, 0, "")}
        for kind, body in (("evaluation", _evaluation()), ("calibration", _calibration(http))):
            found[kind] = _beside(http, kind, body, seconds)
        alone += [picture_seconds(http, VARIANT, STEPS) for _ in range(20)]
    idle = statistics.median(alone)
    return {
        "question": "priority",
        "model": MODEL,
        "variant": VARIANT,
        "steps": STEPS,
        "date": today(),
        "machine": machine(os.cpu_count() or 1),
        "alone_s": idle,
        "during": {
            kind: {
                "progress_events": each.events,
                "status": each.status,
                "p50_ratio": statistics.median(chain.from_iterable(each.seconds.values())) / idle,
                "by_stage": {
                    stage: {"pictures": len(times), "p50_ratio": statistics.median(times) / idle}
                    for stage, times in each.seconds.items()
                },
            }
            for kind, each in found.items()
            if kind != "alone"
        },
    }


class _Beside:
    def __init__(self, seconds: dict[str, list[float]], events: int, status: str) -> None:
        self.seconds, self.events, self.status = seconds, events, status


def _beside(http: httpx.Client, kind: str, body: dict[str, Any], most: float) -> _Beside:
    """Pictures while the job runs, for so many seconds at most, with a pause between them in which it may go on."""
    job = http.post(f"/v1/{kind}s", json={"model": MODEL, **body}).json()
    link = job["links"]["self"]
    until = time.monotonic() + most
    found: dict[str, list[float]] = {}
    seen: set[tuple[str, int]] = set()
    status = "queued"
    while time.monotonic() < until and status in ("queued", "running"):
        before = _progress(http, link)
        took = picture_seconds(http, VARIANT, STEPS)
        after, status = _progress(http, link), str(http.get(link).json()["status"])
        if before and after and before[0] == after[0]:
            found.setdefault(before[0], []).append(took)
        seen |= {each for each in (before, after) if each}
        time.sleep(0.5)
    http.post(job["links"]["cancel"])
    return _Beside(found, len(seen), status)


def _progress(http: httpx.Client, link: str) -> tuple[str, int] | None:
    progress = http.get(link).json()["progress"]
    return (progress["stage"], progress["step"]) if progress else None


def _evaluation() -> dict[str, Any]:
    return {"variants": [VARIANT], "prompt_sets": ["shapes-plain"], "limit": 16}


def _calibration(http: httpx.Client) -> dict[str, Any]:
    preset = http.get("/v1/catalogue").json()["presets"]["best-w4a8"]
    recipe = {name: value for name, value in preset.items() if value is not None} | SHORT
    return {"recipe": recipe, "prompts": "shapes-plain", "variant": "beside-pictures"}


def main(
    seconds: Annotated[float, typer.Option(min=10, help="how long pictures are drawn beside each job, at most")] = 420,
    keep: Keep = False,
    as_json: AsJson = False,
) -> None:
    """Measure pictures beside an evaluation and a calibration."""
    result = measure(seconds)
    if keep:
        save(result, f"priority-{MODEL}")
    if as_json:
        stdout.print_json(json.dumps(result))
        return
    table = Table("beside", "stage", "pictures", "p50 / alone", title=f"alone: {result['alone_s']:.2f} s a picture")
    for kind, each in result["during"].items():
        table.add_row(kind, f"all, {each['progress_events']} steps, {each['status']}", "", f"{each['p50_ratio']:.2f}")
        for stage, figures in each["by_stage"].items():
            table.add_row("", stage, str(figures["pictures"]), f"{figures['p50_ratio']:.2f}")
    stdout.print(table)


if __name__ == "__main__":
    typer.run(main)
