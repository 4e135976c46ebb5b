"""The figures of all arms that were measured, as one document and for the eye."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from benchmarks.methods.evidence import processor
from benchmarks.methods.number import number
from benchmarks.methods.results import Json, Standing, State

FLOORS = "floors"
COLUMNS = (
    "ssim",
    "psnr",
    "latent_mse",
    "trajectory",
    "frechet:judge",
    "image_cosine:judge",
    "prompt_accuracy",
    "lpips",
)
"""The metrics that tables show, in this order, those of them that were measured."""


def table(standing: Mapping[str, Standing]) -> Json:
    """`<arm>.<prompt set>.<metric>.{mean,ci95}` and `<arm>.{seconds,processor,peak_bytes,bytes,state}` of every arm
    that has a result; the gap of generalization as `<arm>.generalization.<prompt set>.<metric>`; and the first arm's
    `floors.<floor>.<prompt set>.<metric>`."""
    rows = {name: _row(each) for name, each in standing.items() if each.result is not None}
    floors: Json = next((each.result["floors"] for each in standing.values() if _finished(each) and each.result), {})
    shown = {name: {each: _figures(by) for each, by in floor.items()} for name, floor in floors.items()}
    return {**rows, **({FLOORS: shown} if shown else {})}


def rich_table(document: Json, prompt_set: str) -> Table:
    """The rows of one prompt set with intervals."""
    rows = {name: row for name, row in document.items() if name != FLOORS and prompt_set in row}
    metrics = columns(document, prompt_set)
    shown = Table(title=prompt_set)
    for name in ("arm", *metrics, "seconds", "MB"):
        shown.add_column(name, overflow="fold")
    for name, row in rows.items():
        label = name if row["state"] == State.FINISHED else f"{name} ({row['state']})"
        cells = [cell(row[prompt_set].get(metric)) for metric in metrics]
        shown.add_row(label, *cells, f"{row['seconds']:.0f}", f"{row['bytes'] / 1e6:.1f}")
    for name, floor in document.get(FLOORS, {}).items():
        if prompt_set in floor:
            shown.add_row(name, *(cell(floor[prompt_set].get(metric)) for metric in metrics), "", "", style="dim")
    return shown


def columns(document: Json, prompt_set: str) -> list[str]:
    """The metrics that any arm has on a prompt set."""
    rows = [row[prompt_set] for name, row in document.items() if name != FLOORS and prompt_set in row]
    return [metric for metric in COLUMNS if any(metric in row for row in rows)]


def sets_of(document: Json) -> list[str]:
    """The prompt sets of a table, in order."""
    found: dict[str, None] = {}
    for name, row in document.items():
        if name != FLOORS:
            found |= dict.fromkeys(row["prompt_sets"])
    return list(found)


def cell(statistic: Json | None) -> str:
    """Mean and interval in a few digits; "" where there is none."""
    if statistic is None or statistic["mean"] is None:
        return ""
    if statistic["ci95"] is None:
        return number(statistic["mean"])
    low, high = statistic["ci95"]
    return f"{number(statistic['mean'])} ({number(low)} to {number(high)})"


def _row(standing: Standing) -> Json:
    result: Json = standing.result or {}
    return {
        **{name: _figures(figures) for name, figures in result["figures"].items()},
        "generalization": {name: _figures(gap) for name, gap in result["generalization"].items()},
        "seconds": result["calibration"]["seconds"],
        "processor": processor(result),
        "peak_bytes": result["calibration"]["peak_bytes"],
        "bytes": result["denoiser_bytes"],
        "disturbance": result["calibration"]["disturbance"],
        "prompt_sets": list(result["figures"]),
        "state": str(standing.state),
        **({"same_as": standing.same_as} if standing.same_as else {}),
    }


def _figures(figures: Mapping[str, Any]) -> Json:
    return {metric: {"mean": each["mean"], "ci95": each["ci95"]} for metric, each in figures.items()}


def _finished(standing: Standing) -> bool:
    return standing.state is State.FINISHED
