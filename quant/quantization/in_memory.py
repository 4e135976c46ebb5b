"""A quantized copy of a pipeline in memory: no folder, no card, no report."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from diffusers import DiffusionPipeline
from torch import nn

from contract.catalogue import SEEDS
from contract.places import shipped
from contract.recipe import Recipe
from quant.calibration.journal import Journal
from quant.calibration.run import Run
from quant.checkpoints.checkpoint import layout_of
from quant.checkpoints.pipelines import denoiser_of, native_size
from quant.discovery import family_name, family_of
from quant.errors import RecipeMismatch
from quant.quantization.job import stages_of
from quant.quantization.quantize import Calibration, quantize_pipeline
from quant.sampling.progress import Progress
from quant.sampling.prompts import OWN_SET, Prompt, prompts_from_texts, select_prompts, without_prompts
from quant.sampling.request import Sampling


def quantized_copy(
    pipeline: DiffusionPipeline,
    recipe: Recipe,
    prompts: Sequence[Prompt],
    size: tuple[int, int] | None,
    on_progress: Progress,
) -> DiffusionPipeline:
    """A copy of a floating-point pipeline whose denoiser multiplies integers; the rest of the copy computes in float32.
    The pipeline itself is left as it is.

    `size` is the width and height of the calibration pictures, None: those that the denoiser was made for. Raises
    RecipeMismatch where recipe, pipeline and prompts do not fit, ModelError for a pipeline of no family,
    NotEnoughMemory, and CalibrationDiverged."""
    if layout_of(denoiser_of(pipeline)) is not None:
        raise RecipeMismatch("this pipeline is quantized already: quantize the floating-point one")
    family_of(pipeline).check(pipeline)
    stages = stages_of(recipe, family_name(pipeline), prompts)
    copied = copy.deepcopy(pipeline)
    copied.set_progress_bar_config(disable=True)
    for part in copied.components.values():
        if isinstance(part, nn.Module):
            part.float().eval().requires_grad_(False)
    used = prompts[: recipe.calibration.num_prompts]
    sampling = Sampling.of_calibration(recipe.calibration, size or native_size(pipeline))
    run = Run(tuple(prompt.text for prompt in used), sampling)
    quantize_pipeline(copied, Calibration(recipe, stages, run), Journal(None), on_progress)
    return copied


def calibration_prompts(
    pipeline: DiffusionPipeline, recipe: Recipe, prompts: str | Sequence[str] | None
) -> tuple[Recipe, list[Prompt]]:
    """What a recipe calibrates a pipeline on: texts, a prompt set by name, a prompt file by path, or, for None, the
    shipped set; pictures without a prompt for a pipeline that takes none. Where there are fewer prompts than the recipe
    asks for, the recipe that comes back asks for as many as there are. Raises PromptSetError."""
    count = recipe.calibration.num_prompts
    if prompts is None:
        prompts = OWN_SET if family_of(pipeline).asked == "text" else SEEDS
    if prompts == SEEDS:
        found = without_prompts("calibration", count)
    elif isinstance(prompts, str):
        found = select_prompts(shipped("prompts"), prompts, "calibration", count)
    else:
        found = prompts_from_texts(list(prompts))[:count]
    inputs = recipe.calibration.model_copy(update={"num_prompts": min(count, len(found))})
    return recipe.model_copy(update={"calibration": inputs}), found
