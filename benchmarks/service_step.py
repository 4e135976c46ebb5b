"""How long does one step take where the user is: in a picture by POST, in a plain process, and of the denoiser alone?

`python -m benchmarks.service_step --save`

A service of the embedded model is started for each dtype and asked for pictures in turns with a process that draws the
same ones without a service. A step's time is the difference between a picture of many steps and one of few, by the
difference of their steps, so that encoding, decoding, HTTP and files cancel out. Service and process are started
several times: where its memory lies makes one process up to a third faster than the next."""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from benchmarks.contest import spread
from benchmarks.machine import machine, today
from benchmarks.result import AsJson, Keep, save, stdout
from benchmarks.served import MODEL, picture_seconds, service
from benchmarks.shape import ROOT

FEW, MANY = 5, 30
DTYPES = ("float32", "bfloat16")
VARIANTS = ("reference", "w8a8-minmax")
PLACES = ("service", "process", "engine")
Timed = Callable[[str, int], float]
"""Seconds of a picture of a variant in so many steps."""


def measure(starts: int, rounds: int, dtypes: tuple[str, ...]) -> dict[str, Any]:
    """Milliseconds of a step by dtype, variant and place over all starts, and service / process: the ratio of the
    medians of what each start's median was."""
    steps: dict[str, dict[str, dict[str, list[float]]]] = {}
    for dtype in dtypes:
        found: dict[str, dict[str, list[float]]] = {name: {place: [] for place in PLACES} for name in VARIANTS}
        for _ in range(starts):
            for variant, places in _started(dtype, rounds).items():
                for place, times in places.items():
                    found[variant][place].append(statistics.median(times))
        steps[dtype] = found
    threads = os.cpu_count() or 1
    return {
        "question": "service_step",
        "model": MODEL,
        "starts": starts,
        "rounds": rounds,
        "date": today(),
        "machine": machine(threads),
        "step_ms": {
            dtype: {
                variant: {place: spread(times) for place, times in places.items()} for variant, places in of.items()
            }
            for dtype, of in steps.items()
        },
        "service/process": {
            dtype: {variant: _ratio(places["service"], places["process"]) for variant, places in of.items()}
            for dtype, of in steps.items()
        },
    }


def _ratio(one: list[float], other: list[float]) -> float:
    return statistics.median(one) / statistics.median(other)


def _started(dtype: str, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Of one service and one process."""
    with tempfile.TemporaryDirectory() as folder, service(Path(folder), dtype) as http, _plain(dtype) as plain:
        places = (partial(picture_seconds, http), plain("picture"), plain("denoiser"))
        return _alternate(dict(zip(PLACES, places, strict=True)), rounds)


def _alternate(places: dict[str, Timed], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds a step, by variant and place, in shuffled turns."""
    found: dict[str, dict[str, list[float]]] = {name: {place: [] for place in places} for name in VARIANTS}
    shuffle = random.Random(0).shuffle
    for count in range(rounds + 1):
        turns = [(variant, place) for variant in VARIANTS for place in places]
        shuffle(turns)
        for variant, place in turns:
            few, many = (places[place](variant, steps) for steps in (FEW, MANY))
            if count:  # the first round lays out weights
                found[variant][place].append(1000 * (many - few) / (MANY - FEW))
    return found


@contextmanager
def _plain(dtype: str) -> Iterator[Callable[[str], Timed]]:
    """A process that draws the same pictures, or calls the denoiser alone, without a service."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.service_step_process", dtype], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def ask(what: str, variant: str, steps: int) -> float:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("no pipes")
        process.stdin.write(json.dumps({"what": what, "variant": variant, "steps": steps}) + "\n")
        process.stdin.flush()
        return float(process.stdout.readline())

    try:
        yield lambda what: lambda variant, steps: ask(what, variant, steps)
    finally:
        process.terminate()
        process.wait(60)


def main(
    starts: Annotated[int, typer.Option(min=1, help="times that service and process are started")] = 5,
    rounds: Annotated[int, typer.Option(min=1, help="times that everything is drawn after each start")] = 3,
    dtype: Annotated[list[str], typer.Option(help="dtypes of the model")] = list(DTYPES),  # noqa: B006
    keep: Keep = False,
    as_json: AsJson = False,
) -> None:
    """Measure a step of the embedded model in the service, in a plain process, and of the denoiser alone."""
    result = measure(starts, rounds, tuple(dtype))
    if keep:
        save(result, f"service_step-{MODEL}")
    if as_json:
        stdout.print_json(json.dumps(result))
        return
    table = Table("dtype", "variant", "service, ms", "process, ms", "denoiser, ms", "service / process")
    for name, variants in result["step_ms"].items():
        for variant, places in variants.items():
            medians = [f"{places[place]['median']:.1f}" for place in PLACES]
            table.add_row(name, variant, *medians, f"{result['service/process'][name][variant]:.2f}")
    stdout.print(table)


if __name__ == "__main__":
    typer.run(main)
