"""A calibration: all stages in order."""

from __future__ import annotations

from dataclasses import replace

from diffusers import DiffusionPipeline

from contract.recipe import Recipe
from contract.stages import Stages
from quant.calibration import estimate
from quant.calibration.bench import open_bench
from quant.calibration.export import export
from quant.calibration.journal import Journal
from quant.calibration.run import Run
from quant.calibration.stage import stages as all_stages
from quant.calibration.stages import inputs
from quant.checkpoints.layout import Layout
from quant.sampling.progress import Progress


def calibrate(
    pipeline: DiffusionPipeline, recipe: Recipe, stages: Stages, run: Run, journal: Journal, progress: Progress
) -> Layout:
    """Quantizes the pipeline's denoiser in place; returns how it is laid out then.

    Pieces of work that `journal` knows are not done again. Raises RecipeMismatch for what this model cannot follow,
    NotEnoughMemory before anything is done, and CalibrationDiverged."""
    bench = replace(open_bench(pipeline, recipe, stages, run), journal=journal, progress=progress)
    expected = estimate.check(bench)
    progress("prepare", 1, 1, str(expected))
    bench = replace(bench, halted=expected.halted)
    drawn = inputs.draw(stages.inputs, bench)
    for name, options in stages.options().items():
        all_stages()[name].apply(options, bench, drawn)
    return export(bench, drawn)
