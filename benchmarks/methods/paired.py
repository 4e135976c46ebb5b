"""Scores of single pictures, so that arms which were measured on different days can be tested against each other."""

from __future__ import annotations

import math
from pathlib import Path

from quant.checkpoints.card_file import read_card
from quant.fidelity.arm import reference_arms, variant_arm
from quant.fidelity.backbone import Backbones
from quant.fidelity.evaluation import EvaluationJob
from quant.fidelity.measurement import Measurement
from quant.fidelity.metric_choice import choose
from quant.fidelity.run import Run, batches
from quant.fidelity.tensor_cache import TensorCache

METRICS = ("ssim", "latent_mse")
DIGITS = 7

Scores = dict[str, dict[str, list[float | None]]]


def paired_scores(job: EvaluationJob, variant: str, cache: Path) -> Scores:
    """Of a variant that has been evaluated with this cache: for every prompt set and metric a value per prompt, in the
    set's order, None where it is not a number. Nothing is drawn: `evaluate` left all of it in the cache."""
    described, folder = job.description, job.variants[variant]
    backbones = Backbones(job.backbones)
    metrics, _ = choose(job.metrics, backbones, described.height, described.width)
    run = Run(reference_arms(described, job.device)[0], job.sampling, metrics, backbones, TensorCache(cache))
    arm = variant_arm(variant, folder, read_card(folder), job.description.dtype, job.device)
    found: Scores = {}
    for prompt_set in job.prompt_sets:
        parts = [run.measurement(arm, batch) for batch in batches(prompt_set, job.seed)]
        scores = Measurement.joined(parts).scores
        found[prompt_set.name] = {metric: _plain(scores[metric].tolist()) for metric in METRICS if metric in scores}
    return found


def _plain(values: list[float]) -> list[float | None]:
    return [float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None for value in values]
