"""How much room does the denoiser take on disk and in memory, in each scheme?

`python -m benchmarks.memory --shape sd-v1-4 --save`"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from benchmarks.contender import CONTENDERS
from benchmarks.contest import prepare
from benchmarks.machine import machine, today, turn
from benchmarks.process import Process
from benchmarks.result import AsJson, Keep, Lock, save, stdout
from benchmarks.shape import CACHE, SHAPES, ensure_weights, parameters

SCHEMES = {
    "fp32": "diffusers-fp32",
    "bf16": "diffusers-bf16",
    "w8a8": "ours-w8a8",
    "w4a8": "ours-w4a8",
    "w4a8-packed": "ours-w4a8-packed",
}
FLOAT_BYTES = {"fp32": 4, "bf16": 2}


def measure(shape: str, batch: int, threads: int, lock: Path | None) -> dict[str, Any]:
    """Each scheme in a fresh process: resident bytes that loading and a first step add, and bytes of the tensors."""
    ensure_weights(SHAPES[shape])
    found = {scheme: _room(shape, scheme, batch, threads, lock) for scheme in SCHEMES}
    return {
        "question": "memory",
        "shape": shape,
        "batch": batch,
        "date": today(),
        "machine": machine(threads),
        "parameters": parameters(SHAPES[shape]),
        "bytes": found,
        "ratio": {
            scheme: {kind: value / found["fp32"][kind] for kind, value in room.items()}
            for scheme, room in found.items()
        },
    }


def _room(shape: str, scheme: str, batch: int, threads: int, lock: Path | None) -> dict[str, int]:
    name = SCHEMES[scheme]
    task = {"contender": name, "shape": shape, "batch": batch, "seed": 0, "threads": threads}
    prepare(CONTENDERS[name], task, lock)
    with Process(name, threads) as process, turn(lock):
        ready = process.ask("load", **task)
        process.ask("step")
        after = process.ask("resident")
    return {
        "file": _file_bytes(shape, scheme, ready["notes"]),
        "resident": after["resident_bytes"] - ready["resident_before"],
        "peak": after["peak_bytes"] - ready["resident_before"],
        "tensors": after["tensor_bytes"],
    }


def _file_bytes(shape: str, scheme: str, notes: dict[str, Any]) -> int:
    if scheme in FLOAT_BYTES:
        return FLOAT_BYTES[scheme] * parameters(SHAPES[shape])
    folder = CACHE / notes["checkpoint"]
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def main(
    shape: Annotated[str, typer.Option(help=f"one of {', '.join(SHAPES)}")] = "sd-v1-4",
    batch: Annotated[int, typer.Option(min=1, help="latents in the first step")] = 2,
    threads: Annotated[int, typer.Option(min=1, help="threads of every process")] = 2,
    lock: Lock = None,
    keep: Keep = False,
    as_json: AsJson = False,
) -> None:
    """Measure files and memory of the denoiser in each scheme."""
    result = measure(shape, batch, threads, lock)
    if keep:
        save(result, f"memory-{shape}")
    if as_json:
        stdout.print_json(json.dumps(result))
        return
    table = Table("scheme", "file MB", "tensors MB", "resident MB", "peak MB", "file / fp32", "resident / fp32")
    table.title = f"denoiser of {shape}"
    for scheme, room in result["bytes"].items():
        sizes = (f"{room[kind] / 1e6:.0f}" for kind in ("file", "tensors", "resident", "peak"))
        ratio = result["ratio"][scheme]
        table.add_row(scheme, *sizes, f"{ratio['file']:.3f}", f"{ratio['resident']:.3f}")
    stdout.print(table)


if __name__ == "__main__":
    typer.run(main)
