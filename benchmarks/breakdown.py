"""Where does the time of one step go: convolutions, linear layers, attention, quantization, norms, or the rest?

`python -m benchmarks.breakdown --shape sd-v1-4 --save`"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from benchmarks.contender import CONTENDERS
from benchmarks.contest import prepare, undisturbed
from benchmarks.machine import machine, today, turn
from benchmarks.operators import ORDER, by_class
from benchmarks.process import Process
from benchmarks.result import AsJson, Keep, Lock, save, stdout
from benchmarks.shape import SHAPES, ensure_weights

PROFILED = "diffusers-bf16,ours-w8a8,ours-w4a8-packed"
LISTED = 12
"""Operators that the result names, the longest first."""


def measure(
    shape: str, contenders: list[str], batch: int, threads: int, seed: int, lock: Path | None
) -> dict[str, Any]:
    """Profiles the contenders one after the other, each in a process of its own; the result as in the JSON file."""
    ensure_weights(SHAPES[shape])
    seconds, operators, versions, notes, disturbance = {}, {}, {}, {}, {}
    for name in contenders:
        task = {"contender": name, "shape": shape, "batch": batch, "seed": seed, "threads": threads}
        prepare(CONTENDERS[name], task, lock)
        with Process(name, threads) as process, turn(lock):
            ready = process.ask("load", **task)
            microseconds, others = undisturbed(process.pid, lambda: process.ask("profile")["operators"])
        versions[name], notes[name], disturbance[name] = ready["versions"], ready["notes"], others
        seconds[name] = by_class(microseconds)
        longest = sorted(microseconds, key=lambda operator: -microseconds[operator])[:LISTED]
        operators[name] = {operator: microseconds[operator] / 1e6 for operator in longest}
    return {
        "question": "breakdown",
        "shape": shape,
        "batch": batch,
        "seed": seed,
        "date": today(),
        "machine": machine(threads),
        "versions": versions,
        "notes": notes,
        "disturbance": disturbance,
        "seconds": seconds,
        "operators": operators,
    }


def main(
    shape: Annotated[str, typer.Option(help=f"one of {', '.join(SHAPES)}")] = "sd-v1-4",
    batch: Annotated[int, typer.Option(min=1, help="latents in the step")] = 2,
    contenders: Annotated[str, typer.Option(help="comma-separated; those that run torch's operators")] = PROFILED,
    threads: Annotated[int, typer.Option(min=1, help="threads of every contender")] = 2,
    seed: Annotated[int, typer.Option(help="of the inputs")] = 0,
    lock: Lock = None,
    keep: Keep = False,
    as_json: AsJson = False,
) -> None:
    """Profile one step of a denoiser and sum the time of its operators by kind."""
    result = measure(shape, contenders.split(","), batch, threads, seed, lock)
    if keep:
        save(result, f"breakdown-{shape}-b{batch}")
    if as_json:
        stdout.print_json(json.dumps(result))
        return
    table = Table("seconds", *result["seconds"], title=f"{shape}, one step, batch {batch}")
    for kind in ORDER:
        table.add_row(kind, *(f"{seconds[kind]:.4f}" for seconds in result["seconds"].values()))
    stdout.print(table)


if __name__ == "__main__":
    typer.run(main)
