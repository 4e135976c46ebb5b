"""How long from a warm disk to a loaded model, and to its first step?

`python -m benchmarks.loading --save`"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table

from benchmarks.contender import CONTENDERS
from benchmarks.contest import prepare, spread
from benchmarks.machine import machine, today, turn
from benchmarks.process import Process
from benchmarks.result import AsJson, Keep, Lock, save, stdout
from benchmarks.shape import ROOT, SHAPES, ensure_weights
from quant.checkpoints.pipelines import load_variant

EMBEDDED = ROOT / "models" / "variants" / "shapes-sd" / "w8a8-minmax"
UNETS = ("diffusers-bf16", "ours-w8a8", "ours-w4a8", "ours-w4a8-packed")


def measure(shape: str, rounds: int, threads: int, lock: Path | None) -> dict[str, Any]:
    """The embedded variant with its digest checked, and UNets of a shape, each load in a fresh process."""
    torch.set_num_threads(threads)
    ensure_weights(SHAPES[shape])
    with turn(lock):
        variant = [_seconds() for _ in range(rounds + 1)][1:]
    unets = {name: _unet(name, shape, rounds, threads, lock) for name in UNETS}
    return {
        "question": "loading",
        "shape": shape,
        "rounds": rounds,
        "date": today(),
        "machine": machine(threads),
        "variant": EMBEDDED.relative_to(ROOT).as_posix(),
        "variant_s": spread(variant),
        "unet_s": {name: spread(loads) for name, (loads, _) in unets.items()},
        "first_step_s": {name: statistics.median(steps) for name, (_, steps) in unets.items()},
    }


def _seconds() -> float:
    started = time.perf_counter()
    load_variant(EMBEDDED)
    return time.perf_counter() - started


def _unet(name: str, shape: str, rounds: int, threads: int, lock: Path | None) -> tuple[list[float], list[float]]:
    """Seconds to load and seconds of the first step, which lays the weights out for the kernels; the first is thrown
    away, as the disk may have been cold."""
    task = {"contender": name, "shape": shape, "batch": 2, "seed": 0, "threads": threads}
    prepare(CONTENDERS[name], task, lock)
    loads, steps = [], []
    for _ in range(rounds + 1):
        with Process(name, threads) as process, turn(lock):
            loads.append(process.ask("load", **task)["load_s"])
            steps += process.ask("step")["seconds"]
    return loads[1:], steps[1:]


def main(
    shape: Annotated[str, typer.Option(help=f"one of {', '.join(SHAPES)}")] = "sd-v1-4",
    rounds: Annotated[int, typer.Option(min=1, help="times that everything is loaded")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="threads")] = 2,
    lock: Lock = None,
    keep: Keep = False,
    as_json: AsJson = False,
) -> None:
    """Measure loading from a warm disk."""
    result = measure(shape, rounds, threads, lock)
    if keep:
        save(result, "loading")
    if as_json:
        stdout.print_json(json.dumps(result))
        return
    table = Table("what", "seconds to load", "seconds of the first step")
    table.add_row(result["variant"], f"{result['variant_s']['median']:.3f}", "")
    for name, seconds in result["unet_s"].items():
        table.add_row(f"UNet of {shape}, {name}", f"{seconds['median']:.3f}", f"{result['first_step_s'][name]:.2f}")
    stdout.print(table)


if __name__ == "__main__":
    typer.run(main)
