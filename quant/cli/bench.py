"""`bench`: QDiffBench on variants of a model."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from contract.places import data_folder
from quant.checkpoints.output_folder import make_writable
from quant.cli.options import (
    BACKBONES,
    CACHE,
    MODELS,
    PROMPTS,
    VARIANTS,
    AsJson,
    Model,
    Models,
    PromptFolder,
    Seed,
    SeveralPrompts,
    VariantFolders,
    describe,
    model_name,
    print_json,
    stderr,
    stdout,
    variant_folder,
    variant_names,
)
from quant.cli.progress import progress_bar
from quant.errors import CheckpointError, QuantError
from quant.sampling.prompts import OWN_SET, load_prompt_set, seen_prompts
from quant.sampling.seeds import EVALUATION_SEED

if TYPE_CHECKING:
    from quant.fidelity.document import Document

ALL = "all"
OUTPUT = data_folder() / "bench"


def bench(
    model: Model,
    variant: Annotated[
        list[str], typer.Option(help="a variant's name, or its folder; repeatable; all: all that the model has")
    ] = [ALL],  # noqa: B006
    prompts: SeveralPrompts = [OWN_SET],  # noqa: B006
    limit: Annotated[int, typer.Option(min=1, help="prompts of each set")] = 64,
    metric: Annotated[
        list[str], typer.Option(help="name, or name:backbone", show_default="all that can be measured")
    ] = [],  # noqa: B006
    real: Annotated[Path | None, typer.Option(help="folder of real pictures to take distances to as well")] = None,
    pictures: Annotated[Path | None, typer.Option(help="folder to also write all pictures to, as PNG")] = None,
    seed: Seed = EVALUATION_SEED,
    output: Annotated[
        Path | None, typer.Option(help="folder of the report", show_default="bench/<model> in the data folder")
    ] = None,
    cache: Annotated[Path, typer.Option(help="folder that a killed run goes on from")] = CACHE,
    backbones: Annotated[Path, typer.Option(help="folder of the metrics' backbones")] = BACKBONES,
    models: Models = MODELS,
    variant_folders: VariantFolders = VARIANTS,
    prompt_folder: PromptFolder = PROMPTS,
    as_json: AsJson = False,
) -> None:
    """Measure variants against their float reference over whole prompt sets, with floors, intervals and a report."""
    description = describe(model, models)
    names = variant_names(model, variant_folders) if variant == [ALL] else list(dict.fromkeys(variant))
    if not names:
        raise CheckpointError(f"{model} has no variants: make one with `facsimile quantize`")

    from quant.fidelity.evaluation.evaluation import evaluate
    from quant.fidelity.evaluation.job import EvaluationJob
    from quant.fidelity.report.report import write_report

    job = EvaluationJob(
        model=model_name(model),
        description=description,
        variants={Path(name).name: variant_folder(model, name, variant_folders) for name in names},
        prompt_sets=tuple(load_prompt_set(prompt_folder, name, limit) for name in prompts),
        metrics=tuple(metric),
        seed=seed,
        seen=seen_prompts(prompt_folder),
        real=real,
        pictures=pictures,
        backbones=backbones,
    )
    folder = make_writable(output or OUTPUT / model_name(model))
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
        print_json(report.document.model_dump(mode="json"))
        return
    for prompt_set in report.document.protocol.prompt_sets:
        stdout.print(_table(report.document, prompt_set))
    stdout.print(f"report: {folder / 'report.html'}")


def _table(document: Document, prompt_set: str) -> Table:
    variants, floors = document.measured, document.floors
    table = Table("metric", *variants, *floors, title=f"{document.model} on {prompt_set}, means")
    for metric in document.protocol.metrics:
        by_arm = [
            *(variant.prompt_sets for variant in variants.values()),
            *(floor.prompt_sets for floor in floors.values()),
        ]
        statistics = [by_set[prompt_set].get(metric) for by_set in by_arm]
        means = [None if statistic is None else statistic.mean for statistic in statistics]
        table.add_row(metric, *("" if mean is None else f"{mean:.4f}" for mean in means))
    return table
