"""All stages of a quantization, in order."""

from __future__ import annotations

from diffusers import DiffusionPipeline

from contract.recipe import Recipe
from contract.stages import Stages
from quant.calibration import memory
from quant.calibration.journal import Journal
from quant.calibration.preparation import layout_of
from quant.calibration.stages import (
    bits,
    bits_over_time,
    fine_tuning,
    inputs,
    output_correction,
    ranges,
    rounding,
    time_path,
    weight_scales,
)
from quant.calibration.stages.export import export
from quant.calibration.workbench import Progress, Run, Workbench
from quant.checkpoints.layout import Layout, prepare
from quant.checkpoints.pipelines import denoiser_of
from quant.discovery import anatomy_of
from quant.layers.time_path.delta import add_deltas
from quant.layers.time_path.serving import serve


def run(
    pipeline: DiffusionPipeline, recipe: Recipe, stages: Stages, drawn: Run, journal: Journal, progress: Progress
) -> Layout:
    """Quantizes the pipeline's denoiser in place; returns how it is laid out then.

    Pieces of work that `journal` knows are not done again. Raises RecipeMismatch for what this model cannot follow,
    NotEnoughMemory before anything is done, and CalibrationDiverged."""
    bench = open_bench(pipeline, recipe, stages, drawn)
    bench.journal, bench.progress = journal, progress
    memory.check(bench)
    inputs.apply(bench)
    bits.apply(bench)
    weight_scales.apply(bench)
    time_path.apply(bench)
    bits_over_time.apply(bench)
    rounding.apply(bench)
    ranges.apply(bench)
    fine_tuning.apply(bench)
    return export(bench, output_correction.fit(bench))


def open_bench(pipeline: DiffusionPipeline, recipe: Recipe, stages: Stages, drawn: Run) -> Workbench:
    """The graph as it will be served, in floating point: shortcuts split, time path replaced; and its fake-quantized
    copy, still with nothing quantized."""
    layout = layout_of(pipeline, recipe, stages, (drawn.sampling.width, drawn.sampling.height))
    denoiser = denoiser_of(pipeline)
    plan = prepare(denoiser, layout)
    if layout.replaces_time_path:
        anatomy = anatomy_of(denoiser)
        path = anatomy.time_path(denoiser)
        serve(denoiser, path, layout.time_path, layout.schedule, anatomy.clock)
        if layout.time_deltas:
            add_deltas(denoiser, path, len(layout.schedule))
    return Workbench(pipeline, recipe, stages, layout, plan, drawn)
