"""From a recipe to a variant: calibrate, write the checkpoint, measure what was written, sign it with a card."""

from __future__ import annotations

from pathlib import Path

from contract.card import Card
from quant.calibration.journal import Journal, sweep
from quant.calibration.stages.run import run
from quant.calibration.workbench import Progress
from quant.checkpoints.checkpoint import CARD, save_checkpoint
from quant.checkpoints.output_folder import make_writable
from quant.checkpoints.pipelines import denoiser_of, load_reference
from quant.engine.memory import PeakMemory
from quant.quantization.card import Cost, card_of
from quant.quantization.job import QuantizationJob

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
    layout = run(pipeline, job.recipe, stages, job.run, finished, on_progress)
    cost = Cost(finished.seconds, memory.resident_bytes)
    on_progress("save", 0, 1)
    save_checkpoint(pipeline, denoiser_of(pipeline), layout, folder)
    on_progress("save", 1, 1)
    del pipeline
    card = card_of(folder, job, cost, on_progress)
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    finished.remove()
    return card
