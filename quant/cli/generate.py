"""`generate`: draw a prompt with a model or one of its variants."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quant.checkpoints.output_folder import make_writable
from quant.cli.options import (
    MODELS,
    VARIANTS,
    AsJson,
    Model,
    Models,
    Variants,
    describe,
    print_json,
    stderr,
    stdout,
    variant_folder,
)
from quant.cli.progress import progress_bar
from quant.errors import SamplingError
from quant.sampling.seeds import SEEDS


def generate(
    model: Model,
    prompt: Annotated[str | None, typer.Option(help="what the picture shows; none for models that take none")] = None,
    output: Annotated[Path, typer.Option(help="folder for <seed>.png")] = Path(),
    variant: Annotated[str, typer.Option(help="a variant, or reference")] = "reference",
    seed: Annotated[int, typer.Option(min=0, max=SEEDS - 1)] = 0,
    num_inference_steps: Annotated[int | None, typer.Option(min=1, max=150)] = None,
    guidance_scale: Annotated[float | None, typer.Option(min=0.0, max=30.0)] = None,
    num_images: Annotated[int, typer.Option(min=1, max=64)] = 1,
    models: Models = MODELS,
    variants: Variants = VARIANTS,
    as_json: AsJson = False,
) -> None:
    """Draw pictures; picture i has seed + i."""
    description = describe(model, models)
    if prompt is not None and not prompt.strip():
        raise SamplingError("--prompt must not be blank")
    make_writable(output)
    folder = None if variant == "reference" else variant_folder(model, variant, variants)

    from quant.checkpoints.pipelines import load_reference, load_variant
    from quant.discovery import family_named
    from quant.sampling.generation import generate as draw
    from quant.sampling.request import Sampling

    if prompt is None and family_named(description.family).asked == "text":
        raise SamplingError(f"--prompt is needed: {model} draws from one")
    pipeline = load_variant(folder) if folder else load_reference(description)
    sampling = Sampling(
        prompt=prompt,
        seed=seed,
        num_inference_steps=num_inference_steps or description.num_inference_steps,
        guidance_scale=description.guidance_scale if guidance_scale is None else guidance_scale,
        width=description.width,
        height=description.height,
        num_images=num_images,
    )
    with progress_bar(stderr) as show:
        drawn = draw(pipeline, sampling, lambda step, total: show("denoise", step, total))
    files = [output / f"{picture_seed}.png" for picture_seed in sampling.seeds]
    for picture, file in zip(drawn.pictures, files, strict=True):
        picture.save(file)
    if as_json:
        print_json({"files": [str(file) for file in files], "seeds": sampling.seeds, "seconds": drawn.seconds})
    else:
        stdout.print("\n".join(map(str, files)))
