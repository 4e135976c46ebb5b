"""How long does a whole picture take, from prompt to pixels: the reference, the same in bfloat16, its variants?

`python -m benchmarks.picture --save`"""

from __future__ import annotations

import json
import random
import statistics
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from diffusers import DiffusionPipeline
from rich.table import Table

from benchmarks.contest import spread
from benchmarks.machine import machine, today, turn
from benchmarks.result import AsJson, Keep, Lock, save, stdout
from quant.checkpoints.pipelines import load_reference, load_variant
from quant.cli.options import MODELS, VARIANTS, describe, variant_folder
from quant.fidelity.bfloat16 import bfloat16_copy
from quant.sampling.generation import generate
from quant.sampling.request import Sampling

MODEL = "shapes-sd"
VARIANT_NAMES = ("w8a8-minmax", "w4a8-minmax")
PROMPT = "a small red metal cube left of a large blue matte ball, light floor"


def measure(pictures: int, rounds: int, threads: int, lock: Path | None) -> dict[str, Any]:
    """Seconds per picture of every pipeline, drawn in turns in one process, in shuffled order."""
    torch.set_num_threads(threads)
    pipelines = _pipelines()
    sampling = Sampling(PROMPT, seed=0, num_images=pictures)
    seconds: dict[str, list[float]] = {name: [] for name in pipelines}
    order, shuffle = list(pipelines), random.Random(0).shuffle
    with turn(lock):
        for count in range(rounds + 1):
            shuffle(order)
            for name in order:
                drawn = generate(pipelines[name], sampling)
                if count:  # the first round lays out weights
                    seconds[name].append(sum(drawn.seconds.values()) / pictures)
    return {
        "question": "picture",
        "model": MODEL,
        "pictures": pictures,
        "rounds": rounds,
        "num_inference_steps": sampling.num_inference_steps,
        "date": today(),
        "machine": machine(threads) | {"torch": str(torch.__version__)},
        "picture_s": {name: spread(times) for name, times in seconds.items()},
        "ratio": {
            f"{name}/diffusers-bf16": statistics.median(
                a / b for a, b in zip(seconds[name], seconds["diffusers-bf16"], strict=True)
            )
            for name in pipelines
        },
    }


def _pipelines() -> dict[str, DiffusionPipeline]:
    reference = load_reference(describe(MODEL, MODELS))
    variants = {name: load_variant(variant_folder(MODEL, name, VARIANTS)) for name in VARIANT_NAMES}
    return {"diffusers-fp32": reference, "diffusers-bf16": bfloat16_copy(reference), **variants}


def main(
    pictures: Annotated[int, typer.Option(min=1, help="pictures drawn together")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="times that everything is drawn")] = 7,
    threads: Annotated[int, typer.Option(min=1, help="threads")] = 2,
    lock: Lock = None,
    keep: Keep = False,
    as_json: AsJson = False,
) -> None:
    """Measure whole pictures of the embedded model."""
    result = measure(pictures, rounds, threads, lock)
    if keep:
        save(result, f"picture-{MODEL}-n{pictures}")
    if as_json:
        stdout.print_json(json.dumps(result))
        return
    table = Table("pipeline", "seconds per picture", "of diffusers-bf16")
    for name, times in result["picture_s"].items():
        table.add_row(name, f"{times['median']:.3f}", f"{result['ratio'][f'{name}/diffusers-bf16']:.2f}")
    stdout.print(table)


if __name__ == "__main__":
    typer.run(main)
