"""`compare`: a variant against its reference over many prompts."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.table import Table

from contract.card import Statistic
from quant.cli.options import (
    MODELS,
    PROMPTS,
    VARIANTS,
    AsJson,
    Guidance,
    Model,
    Models,
    PromptFolder,
    Prompts,
    Seed,
    Steps,
    VariantFolders,
    VariantName,
    describe,
    machine,
    print_json,
    stderr,
    stdout,
    variant_folder,
)
from quant.cli.progress import progress_bar
from quant.sampling.prompts import select_prompts

VARIANT = "variant"


def compare(
    model: Model,
    variant: Annotated[str, VariantName],
    prompts: Prompts = "test",
    limit: Annotated[int, typer.Option(min=1, help="how many prompts")] = 64,
    seed: Seed = 0,
    num_inference_steps: Steps = None,
    guidance_scale: Guidance = None,
    models: Models = MODELS,
    variant_folders: VariantFolders = VARIANTS,
    prompt_folder: PromptFolder = PROMPTS,
    as_json: AsJson = False,
) -> None:
    """Compare a variant with its float reference on the same noise, next to the bfloat16 noise floor."""
    description = describe(model, models)
    chosen = select_prompts(prompt_folder, prompts, "test", limit)
    folder = variant_folder(model, variant, variant_folders)

    from quant.checkpoints.pipelines import load_reference, load_variant
    from quant.fidelity.backbone import Backbones
    from quant.fidelity.bfloat16 import bfloat16_copy
    from quant.fidelity.consistency import consistency
    from quant.fidelity.floors import FLOOR
    from quant.fidelity.metric_choice import choose
    from quant.sampling.request import Sampling

    reference = load_reference(description)
    pipelines = {VARIANT: load_variant(folder), FLOOR: bfloat16_copy(reference)}
    sampling = Sampling.native(description).changed(
        seed=seed, num_inference_steps=num_inference_steps, guidance_scale=guidance_scale
    )
    possible, reasons = choose((), Backbones(), sampling.height, sampling.width)
    metrics = tuple(metric.key for metric in possible if not metric.of_sets)
    started = time.monotonic()
    with progress_bar(stderr) as show:
        measured = consistency(reference, pipelines, chosen, sampling, metrics, show)
    result = _dump(measured[VARIANT]) | {
        "noise_floor": _dump(measured[FLOOR]),
        "not_measured": reasons,
        "model": model,
        "variant": variant,
        "prompts": prompts,
        "count": len(chosen),
        "seed": seed,
        "num_inference_steps": sampling.num_inference_steps,
        "guidance_scale": sampling.guidance_scale,
        "seconds": round(time.monotonic() - started, 1),
        "machine": machine(),
    }
    if as_json:
        print_json(result)
    else:
        stdout.print(_table(measured[VARIANT], measured[FLOOR], f"{model}:{variant}, {len(chosen)} prompts"))


def _dump(statistics: dict[str, Statistic]) -> dict[str, object]:
    return {name: statistic.model_dump(mode="json") for name, statistic in statistics.items()}


def _table(variant: dict[str, Statistic], floor: dict[str, Statistic], title: str) -> Table:
    table = Table("metric", "mean", "95 % interval", "bfloat16 noise floor", title=title)
    for name, statistic in variant.items():
        interval = "" if statistic.ci95 is None else f"{statistic.ci95[0]:.4f} to {statistic.ci95[1]:.4f}"
        means = (s.mean if s.mean is not None else float("nan") for s in (statistic, floor[name]))
        mean, noise = (f"{value:.4f}" for value in means)
        table.add_row(name, mean, interval, noise)
    return table
