"""`quantize`: make a variant from a model and a recipe."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from contract.catalogue import SEEDS
from contract.errors import RecipeError, VariantExists
from contract.recipe import Recipe, read_recipe
from quant.cli.options import (
    MODELS,
    OWN_SET,
    PROMPTS,
    RECIPES,
    ROOT,
    VARIANTS,
    AsJson,
    Model,
    Models,
    Prompts,
    describe,
    print_json,
    stderr,
    stdout,
)
from quant.cli.progress import progress_bar
from quant.sampling.prompts import load_prompts


def quantize(
    model: Model,
    recipe: Annotated[str, typer.Option(help="preset name, or a TOML file")],
    variant: Annotated[str | None, typer.Option(help="name of the variant [default: the recipe's]")] = None,
    output: Annotated[Path, typer.Option(help="folder to hold <model>/<variant>")] = VARIANTS[0],
    calibrate_on: Annotated[str | None, typer.Option(help=f"prompt set to calibrate on [default: {OWN_SET}]")] = None,
    report_on: Annotated[
        str | None, typer.Option(help="prompt set to report on, its validation split [default: the same]")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="prompts of the report")] = 64,
    overwrite: Annotated[bool, typer.Option(help="replace a variant of that name")] = False,
    models: Models = MODELS,
    prompts: Prompts = PROMPTS,
    as_json: AsJson = False,
) -> None:
    """Quantize a model by a recipe; write the checkpoint and its card."""
    description = describe(model, models)
    plan = _recipe(recipe)
    name = variant or plan.variant
    folder, staging = output / model / name, output / model / f".{name}.staging"
    if folder.exists() and not overwrite:
        raise VariantExists(f"{folder} exists: give another --variant, or --overwrite")

    from quant.discovery import family_named
    from quant.quantization.job import QuantizationJob
    from quant.quantization.quantize import quantize as make

    used = calibrate_on or (OWN_SET if family_named(description.family).asked == "text" else SEEDS)
    reported = report_on or used
    job = QuantizationJob(
        model=model,
        description=description,
        recipe=plan,
        variant=name,
        calibration=load_prompts(prompts, used, "calibration", plan.calibration.num_prompts),
        held_out=load_prompts(prompts, reported, "validation", limit),
        prompt_set=f"{reported}/validation",
    )
    shutil.rmtree(staging, ignore_errors=True)
    try:
        with progress_bar(stderr) as show:
            card = make(job, staging, show, ROOT / "data" / "calibrations")
        if folder.exists():
            shutil.rmtree(folder)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if as_json:
        print_json(card.model_dump(mode="json"))
        return
    psnr, floor = card.report.metrics["psnr"], card.report.noise_floor["psnr"]
    stdout.print(f"{model}:{name} in {folder}, {card.quantized_layers} layers quantized")
    stdout.print(f"psnr {psnr.mean} dB {psnr.ci95}; bfloat16 noise floor {floor.mean} dB")


def _recipe(name: str) -> Recipe:
    if name.endswith(".toml"):
        return read_recipe(Path(name))
    known = sorted(path.stem for path in RECIPES.glob("*.toml"))
    if name not in known:
        raise RecipeError(f"preset {name!r} is not there; there are {', '.join(known)}; or give a TOML file")
    return read_recipe(RECIPES / f"{name}.toml")
