"""`quantize`: make a variant from a model and a recipe."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from contract.catalogue import SEEDS
from contract.errors import VariantExists
from quant.cli.options import (
    JOURNALS,
    MODELS,
    PROMPTS,
    VARIANTS,
    AsJson,
    CalibrationPrompts,
    Model,
    Models,
    PromptFolder,
    describe,
    model_name,
    print_json,
    stderr,
    stdout,
)
from quant.cli.progress import progress_bar
from quant.errors import PromptSetError
from quant.quantization.presets import recipe_named
from quant.sampling.prompts import OWN_SET, Prompt, prompt_sets, select_prompts


def quantize(
    model: Model,
    recipe: Annotated[str, typer.Option(help="preset name, or a TOML file")] = "minmax-w8a8",
    variant: Annotated[str | None, typer.Option(help="name of the variant", show_default="the recipe's")] = None,
    prompts: Annotated[str | None, CalibrationPrompts] = None,
    report_prompts: Annotated[
        str | None, typer.Option(help="the same, to report on", show_default="as --prompts, other ones of it")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="prompts of the report")] = 64,
    output: Annotated[Path, typer.Option(help="folder to hold <model>/<variant>")] = VARIANTS[0],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace a variant of that name")] = False,
    models: Models = MODELS,
    prompt_folder: PromptFolder = PROMPTS,
    as_json: AsJson = False,
) -> None:
    """Quantize a model by a recipe; write the checkpoint and its card."""
    description = describe(model, models)
    plan = recipe_named(recipe)
    name = variant or plan.variant
    folder = output / model_name(model) / name
    staging = folder.with_name(f".{name}.staging")
    if folder.exists() and not overwrite:
        raise VariantExists(f"{folder} exists: give another --variant, or --overwrite")

    from quant.discovery import family_named
    from quant.quantization.job import QuantizationJob
    from quant.quantization.quantize import quantize as make

    used = prompts or (OWN_SET if family_named(description.family).asked == "text" else SEEDS)
    calibration, held_out, reported = _prompts(
        prompt_folder, used, report_prompts or used, (plan.calibration.num_prompts, limit)
    )
    job = QuantizationJob(
        model=model_name(model),
        description=description,
        recipe=plan,
        variant=name,
        calibration=calibration,
        held_out=held_out,
        prompt_set=reported,
    )
    shutil.rmtree(staging, ignore_errors=True)
    try:
        with progress_bar(stderr) as show:
            card = make(job, staging, show, JOURNALS)
        if folder.exists():
            shutil.rmtree(folder)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if as_json:
        print_json(card.model_dump(mode="json"))
        return
    psnr, floor = card.report.metrics["psnr"], card.report.noise_floor["psnr"]
    stdout.print(f"{model_name(model)}:{name} in {folder}, {card.quantized_layers} layers quantized")
    stdout.print(f"psnr {psnr.mean} dB {psnr.ci95}; bfloat16 noise floor {floor.mean} dB")


def _prompts(folder: Path, used: str, reported: str, counts: tuple[int, int]) -> tuple[list[Prompt], list[Prompt], str]:
    """The prompts to calibrate on, those to report on, and what the card calls these. A file has no splits: where it is
    used for both, the report is on those that follow calibration's."""
    calibration = select_prompts(folder, used, "calibration", counts[0])
    if reported != used or not Path(used).is_file() or used in prompt_sets(folder):
        name = Path(reported).stem if Path(reported).is_file() else f"{reported}/validation"
        return calibration, select_prompts(folder, reported, "validation", counts[1]), name
    held_out = select_prompts(folder, used, "validation", sum(counts))[counts[0] :]
    if not held_out:
        raise PromptSetError(f"{used} has {len(calibration)} prompts, all to calibrate on: give --report-prompts")
    return calibration, held_out, Path(used).stem
