"""`bench`: QDiffBench on variants of a model."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from quant.checkpoints.output_folder import make_writable
from quant.cli.options import (
    BACKBONES,
    MODELS,
    PROMPTS,
    ROOT,
    VARIANTS,
    AsJson,
    Model,
    Models,
    Prompts,
    Variants,
    describe,
    print_json,
    stderr,
    stdout,
    variant_folder,
    variant_names,
)
from quant.cli.progress import progress_bar
from quant.errors import CheckpointError, QuantError
from quant.sampling.prompts import load_prompt_set, seen_prompts
from quant.sampling.seeds import EVALUATION_SEED, SEEDS

ALL = "all"
CACHE = ROOT / "data" / "evaluation-cache"
OUTPUT = ROOT / "data" / "bench"


def bench(
    model: Model,
    variants: Annotated[list[str], typer.Option(help="variants to measure, or all")] = [ALL],  # noqa: B006
    prompts: Annotated[list[str], typer.Option(help="prompt sets, or prompt files; the first is the primary one")] = [  # noqa: B006
        "shapes-plain"
    ],
    limit: Annotated[int, typer.Option(min=1, help="prompts of each set")] = 64,
    metric: Annotated[list[str], typer.Option(help="name, or name:backbone [default: all that can be measured]")] = [],  # noqa: B006
    real: Annotated[Path | None, typer.Option(help="folder of real pictures to take distances to as well")] = None,
    pictures: Annotated[Path | None, typer.Option(help="folder to also write all pictures to, as PNG")] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=SEEDS - 1, help="seed of every set's first picture")
    ] = EVALUATION_SEED,
    output: Annotated[Path | None, typer.Option(help="folder of the report [default: data/bench/<model>]")] = None,
    cache: Annotated[Path, typer.Option(help="folder that a killed run goes on from")] = CACHE,
    backbones: Annotated[Path, typer.Option(help="folder of the metrics' backbones")] = BACKBONES,
    models: Models = MODELS,
    variant_folders: Variants = VARIANTS,
    prompt_folder: Prompts = PROMPTS,
    as_json: AsJson = False,
) -> None:
    """Measure variants against their float reference over whole prompt sets, with floors, intervals and a report."""
    description = describe(model, models)
    names = variant_names(model, variant_folders) if variants == [ALL] else list(dict.fromkeys(variants))
    if not names:
        raise CheckpointError(f"{model} has no variants: make one with `python -m quant quantize`")

    from quant.fidelity.evaluation import EvaluationJob, evaluate
    from quant.fidelity.report.report import write_report

    job = EvaluationJob(
        model=model,
        description=description,
        variants={name: variant_folder(model, name, variant_folders) for name in names},
        prompt_sets=tuple(load_prompt_set(prompt_folder, name, limit) for name in prompts),
        metrics=tuple(metric),
        seed=seed,
        seen=seen_prompts(prompt_folder),
        real=real,
        pictures=pictures,
        backbones=backbones,
    )
    folder = make_writable(output or OUTPUT / model)
    for each in (cache, *([pictures] if pictures else [])):
        make_writable(each)
    try:
        with progress_bar(stderr) as show:
            report = evaluate(job, cache, show)
    except QuantError:
        with suppress(OSError):  # it stays if it holds anything
            folder.rmdir()
        raise
    write_report(report, folder)
    if as_json:
        print_json(report.document)
        return
    for prompt_set in report.document["protocol"]["prompt_sets"]:
        stdout.print(_table(report.document, prompt_set))
    stdout.print(f"report: {folder / 'report.html'}")


def _table(document: dict[str, Any], prompt_set: str) -> Table:
    arms = {name: each for name, each in document["variants"].items() if "error" not in each}
    table = Table("metric", *arms, *document["floors"], title=f"{document['model']} on {prompt_set}, means")
    for metric in document["protocol"]["metrics"]:
        cells = [each[prompt_set][metric] for each in arms.values()]
        cells += [floor["prompt_sets"][prompt_set].get(metric) for floor in document["floors"].values()]
        table.add_row(
            metric, *("" if cell is None or cell["mean"] is None else f"{cell['mean']:.4f}" for cell in cells)
        )
    return table
