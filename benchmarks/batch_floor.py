"""How far is a picture that is drawn among others from the same one drawn alone?

`python -m benchmarks.batch_floor --save`. The noise is the same; sums are taken in another order in a larger batch, and
quantization turns the last digits of an activation at a tie into a whole step of its code."""

from __future__ import annotations

import json
import math
import statistics
from typing import Annotated, Any

import torch
import typer
from diffusers import DiffusionPipeline
from rich.table import Table

from benchmarks.machine import machine, today
from benchmarks.result import AsJson, Keep, save, stdout
from quant.checkpoints.pipelines import load_reference, load_variant
from quant.cli.options import MODELS, PROMPTS, VARIANTS, describe, variant_folder
from quant.engine.selection import default_engine
from quant.sampling.generation import draw
from quant.sampling.prompts import load_prompts
from quant.sampling.request import Sampling

MODEL = "shapes-sd"
PROMPT_SET = "shapes-plain"
VARIANT_NAMES = ("w8a8-minmax", "w4a8-minmax")


def floor(pipeline: DiffusionPipeline, prompts: list[str], batch: int, sampling: Sampling) -> list[float]:
    """PSNR, dB, of every prompt's picture drawn in a batch of `batch` against the same drawn alone, prompt i from seed
    i; infinite where both are the same to the bit."""
    seeds = list(range(len(prompts)))
    found: list[float] = []
    for start in range(0, len(prompts), batch):
        some, own = prompts[start : start + batch], seeds[start : start + batch]
        together = draw(pipeline, some, own, sampling)
        for i, (prompt, seed) in enumerate(zip(some, own, strict=True)):
            alone = draw(pipeline, [prompt], [seed], sampling)
            a, b = alone.values, together.values[i : i + 1]
            found.append(math.inf if torch.equal(a, b) else float((-10 * (a - b).square().mean().log10()).item()))
    return found


def measure(pictures: int, batch: int, threads: int) -> dict[str, Any]:
    """The floor of the reference and of the shipped variants."""
    torch.set_num_threads(threads)
    prompts = [prompt.text for prompt in load_prompts(PROMPTS, PROMPT_SET, "test")[:pictures]]
    sampling = Sampling("", seed=0)
    pipelines = {"reference": load_reference(describe(MODEL, MODELS))}
    pipelines |= {name: load_variant(variant_folder(MODEL, name, VARIANTS)) for name in VARIANT_NAMES}
    return {
        "question": "batch_floor",
        "model": MODEL,
        "prompts": PROMPT_SET,
        "pictures": pictures,
        "batch": batch,
        "num_inference_steps": sampling.num_inference_steps,
        "date": today(),
        "machine": machine(threads) | {"torch": str(torch.__version__), "engine": default_engine().name},
        "psnr": {name: summary(floor(pipeline, prompts, batch, sampling)) for name, pipeline in pipelines.items()},
    }


def summary(found: list[float]) -> dict[str, Any]:
    """Least, median and largest of the finite values, dB, and how many pictures are identical; null without any."""
    finite = [value for value in found if math.isfinite(value)]
    ends = {"least": min(finite), "median": statistics.median(finite), "largest": max(finite)} if finite else None
    return {"identical": len(found) - len(finite), "differing": len(finite), "db": ends}


def main(
    pictures: Annotated[int, typer.Option(min=1, help="prompts, one picture each")] = 16,
    batch: Annotated[int, typer.Option(min=2, help="pictures drawn together")] = 4,
    threads: Annotated[int, typer.Option(min=1, help="threads")] = 2,
    keep: Keep = False,
    as_json: AsJson = False,
) -> None:
    """Measure what the company of a picture changes in it."""
    result = measure(pictures, batch, threads)
    if keep:
        save(result, f"batch_floor-{MODEL}-n{batch}")
    if as_json:
        stdout.print_json(json.dumps(result, allow_nan=False))
        return
    table = Table("pipeline", "psnr, dB: least", "median", "largest", "identical")
    for name, found in result["psnr"].items():
        ends = [f"{value:.1f}" for value in (found["db"] or {}).values()] or ["-"] * 3
        table.add_row(name, *ends, str(found["identical"]))
    stdout.print(table)


if __name__ == "__main__":
    typer.run(main)
