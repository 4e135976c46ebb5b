"""Scores of single pictures, so that arms which were measured on different days can be tested against each other."""

from __future__ import annotations

import math
from pathlib import Path

from quant.checkpoints.card_file import read_card
from quant.fidelity.arm import variant_arm
from quant.fidelity.evaluation.evaluation import open_study
from quant.fidelity.evaluation.job import EvaluationJob
from quant.fidelity.measurement import Measurement
from quant.fidelity.study import batches

METRICS = ("ssim", "latent_mse")
DIGITS = 7

Scores = dict[str, dict[str, list[float | None]]]


def paired_scores(job: EvaluationJob, variant: str, cache: Path) -> Scores:
    """Of a variant that has been evaluated with this cache: for every prompt set and metric a value per prompt, in the
    set's order, None where it is not a number. Nothing is drawn: `evaluate` left all of it in the cache."""
    folder = job.variants[variant]
    study, _ = open_study(job, cache)
    arm = variant_arm(variant, folder, read_card(folder), job.description.dtype, job.device)
    scores: Scores = {}
    for prompt_set in job.prompt_sets:
        parts = [study.measurement(arm, batch) for batch in batches(prompt_set.prompts, job.seed)]
        measured = Measurement.joined(parts).scores
        scores[prompt_set.name] = {key: _plain(measured[key].tolist()) for key in METRICS if key in measured}
    return scores


def _plain(values: list[float]) -> list[float | None]:
    return [float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None for value in values]
