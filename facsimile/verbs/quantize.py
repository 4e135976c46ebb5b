"""`facsimile.quantize`: a quantized copy of a pipeline."""

from __future__ import annotations

import os
from collections.abc import Sequence

from diffusers import DiffusionPipeline

from contract.recipe import Recipe
from facsimile.verbs.load import opened
from quant.quantization.in_memory import calibration_prompts, quantized_copy
from quant.quantization.presets import recipe_named
from quant.sampling.progress import Progress, silent


def quantize(
    pipeline: DiffusionPipeline | str | os.PathLike[str],
    recipe: str | Recipe = "minmax-w8a8",
    prompts: str | Sequence[str] | None = None,
    *,
    size: tuple[int, int] | None = None,
    on_progress: Progress | None = None,
) -> DiffusionPipeline:
    """A copy of a floating-point pipeline whose denoiser multiplies integers. Nothing is written, and the pipeline that
    was given is left as it is. The copy draws the same pictures as `load` gives after `save`.

    Args:
        pipeline: a diffusers pipeline of one of the families, or a folder that holds one.
        recipe: the name of a preset, the path of a TOML file, or a Recipe.
        prompts: what the model is usually asked for; calibration draws it. A list of texts, the name of a shipped
            prompt set, or the path of a prompt file. None: the shipped set `shapes-plain`, or no prompt for a pipeline
            that takes none. A recipe that asks for more prompts than there are calibrates on those there are.
        size: width and height in pixels of what calibration draws. None: what the denoiser was made for.
        on_progress: called with a stage, how much of it is done, how much there is, and a note.

    Returns:
        A pipeline of the same class. What is not quantized computes in float32.

    Raises:
        ModelError: the folder holds no model, or the pipeline belongs to no family.
        RecipeError: there is no such preset, or the recipe makes no sense.
        RecipeMismatch: this model cannot follow this recipe, or is quantized already.
        PromptSetError: there is no such prompt set, or a prompt is empty or given twice.
        NotEnoughMemory: before anything is done.
        CalibrationDiverged: the optimization of a recipe that trains failed."""
    reference = opened(pipeline)
    plan = recipe_named(recipe) if isinstance(recipe, str) else recipe
    plan, chosen = calibration_prompts(reference, plan, prompts)
    return quantized_copy(reference, plan, chosen, size, _with_note(on_progress or silent))


def _with_note(on_progress: Progress) -> Progress:
    """Gives the note always, as is promised, also to a callback for which it has no default."""
    return lambda stage, done, total, note="": on_progress(stage, done, total, note)
