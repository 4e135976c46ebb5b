"""`generate`: draw a prompt with a model or one of its variants."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contract.catalogue import ModelDescription
from quant.checkpoints.output_folder import make_writable
from quant.cli.options import (
    MODELS,
    VARIANTS,
    AsJson,
    Guidance,
    Model,
    Models,
    Seed,
    Steps,
    VariantFolders,
    VariantName,
    describe,
    print_json,
    stderr,
    stdout,
    variant_folder,
)
from quant.cli.progress import progress_bar
from quant.errors import SamplingError

if TYPE_CHECKING:
    from quant.fidelity.comparison import Comparison
    from quant.sampling.generation import Generation
    from quant.sampling.request import Sampling

REFERENCE = "reference"


def generate(
    model: Model,
    prompt: Annotated[str | None, typer.Option(help="what the picture shows; none for models that take none")] = None,
    negative_prompt: Annotated[str, typer.Option(help="what it does not show")] = "",
    variant: Annotated[str, VariantName] = REFERENCE,
    output: Annotated[Path, typer.Option(help="folder for <seed>.png")] = Path(),
    seed: Seed = 0,
    num_images: Annotated[int, typer.Option(min=1, max=64, help="picture i has seed + i")] = 1,
    width: Annotated[int | None, typer.Option(min=8, help="pixels", show_default="the model's")] = None,
    height: Annotated[int | None, typer.Option(min=8, help="pixels", show_default="the model's")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="sampler, such as euler", show_default="the model's own")
    ] = None,
    num_inference_steps: Steps = None,
    guidance_scale: Guidance = None,
    score: Annotated[bool, typer.Option("--score", help="also measure the pictures against the reference's")] = False,
    models: Models = MODELS,
    variant_folders: VariantFolders = VARIANTS,
    as_json: AsJson = False,
) -> None:
    """Draw pictures."""
    description = describe(model, models)
    if prompt is not None and not prompt.strip():
        raise SamplingError("--prompt must not be blank")
    if score and variant == REFERENCE:
        raise SamplingError("--score measures a variant against the reference: name one by --variant")
    make_writable(output)
    folder = None if variant == REFERENCE else variant_folder(model, variant, variant_folders)

    from quant.discovery import family_named
    from quant.sampling.request import Sampling

    if prompt is None and family_named(description.family).asked == "text":
        raise SamplingError(f"--prompt is needed: {model} draws from one")
    sampling = Sampling.native(description).changed(
        prompt=prompt,
        negative_prompt=negative_prompt,
        seed=seed,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        width=width,
        height=height,
        num_images=num_images,
        scheduler=scheduler,
    )
    drawn, metrics = _draw(description, folder, sampling, score)
    files = [output / f"{picture_seed}.png" for picture_seed in sampling.seeds]
    for picture, file in zip(drawn.pictures, files, strict=True):
        picture.save(file)
    if as_json:
        found: dict[str, Any] = {"files": [str(file) for file in files], "seeds": sampling.seeds}
        print_json(found | {"seconds": drawn.seconds} | ({"metrics": metrics} if score else {}))
        return
    for place, file in enumerate(files):
        values = (f"{name} {'none' if by[place] is None else f'{by[place]:.4f}'}" for name, by in metrics.items())
        stdout.print("  ".join((str(file), *values)), soft_wrap=True)


def _draw(
    description: ModelDescription, folder: Path | None, sampling: Sampling, score: bool
) -> tuple[Generation, dict[str, list[float | None]]]:
    """The pictures, and, where they are scored, their metrics by name."""
    from quant.checkpoints.pipelines import load_reference, load_variant
    from quant.fidelity.comparison import compare
    from quant.sampling.generation import generate as draw

    pipeline = load_variant(folder, description.dtype) if folder else load_reference(description)
    with progress_bar(stderr) as show:
        if not score:
            return draw(pipeline, sampling, lambda step, total: show("denoise", step, total)), {}
        compared: Comparison = compare(
            load_reference(description), pipeline, sampling, lambda step, total: show("denoise", step, total)
        )
    return compared.variant, compared.metrics
