"""From a recipe to a variant: calibrate, write the checkpoint, measure what was written, sign it with a card. A
pipeline in memory is only calibrated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffusers import DiffusionPipeline

from contract.card import Card
from contract.recipe import Recipe
from contract.stages import Stages
from quant.calibration.calibrate import calibrate
from quant.calibration.journal import Journal, sweep
from quant.calibration.run import Run
from quant.checkpoints.card_file import CARD
from quant.checkpoints.checkpoint import round_as_stored, save_checkpoint, sign
from quant.checkpoints.layout import Layout
from quant.checkpoints.output_folder import make_writable
from quant.checkpoints.pipelines import denoiser_of, load_reference
from quant.engine.memory import PeakMemory
from quant.quantization.card import Cost, card_of
from quant.quantization.job import QuantizationJob
from quant.sampling.progress import Progress

_ABANDONED = 7 * 86_400.0
"""Seconds after which a calibration that was killed is not expected to go on; no single piece takes as long."""


def quantize(job: QuantizationJob, folder: Path, on_progress: Progress, journal: Path | None = None) -> Card:
    """Writes the checkpoint and its card to `folder`, which must be empty, and returns the card.

    `journal` is a folder for finished pieces of work: with the same one, a calibration that was killed goes on where it
    was, and gives the same checkpoint; what was done for another job is not taken. It is removed at the end;
    pieces of a calibration that did not go on for a week are removed at the beginning of the next one.
    `on_progress` gets (stage, done, total, note). Before anything is done: RecipeMismatch when a name, recipe and model
    or the two prompt lists do not fit, OutputError for a folder that cannot be written, NotEnoughMemory. Later:
    ModelError, and QuantError from calibration."""
    stages = job.stages()
    make_writable(folder)
    memory = PeakMemory()
    if journal is not None:
        sweep(journal, _ABANDONED)
    finished = Journal(None if journal is None else journal / job.identity())
    pipeline = load_reference(job.exact)
    layout = quantize_pipeline(pipeline, Calibration(job.recipe, stages, job.run), finished, on_progress)
    cost = Cost(finished.seconds, memory.resident_bytes)
    on_progress("save", 0, 1)
    save_checkpoint(pipeline, denoiser_of(pipeline), layout, folder)
    on_progress("save", 1, 1)
    del pipeline
    card = card_of(folder, job, cost, on_progress)
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    finished.remove()
    return card


@dataclass(frozen=True)
class Calibration:
    """What is done to a pipeline: a recipe, all its stages, and the pictures that it calibrates on."""

    recipe: Recipe
    stages: Stages
    run: Run


def quantize_pipeline(
    pipeline: DiffusionPipeline, calibration: Calibration, journal: Journal, on_progress: Progress
) -> Layout:
    """Quantizes a float32 pipeline's denoiser in place; returns how it is laid out then. What stays in floating point,
    in all parts, gets the values that a checkpoint stores, so that a loaded checkpoint computes the same.

    Raises RecipeMismatch for what this model cannot follow, NotEnoughMemory before anything is done, and
    CalibrationDiverged."""
    layout = calibrate(pipeline, calibration.recipe, calibration.stages, calibration.run, journal, on_progress)
    denoiser = denoiser_of(pipeline)
    sign(denoiser, layout)
    round_as_stored(pipeline, denoiser)
    return layout
