"""The consistency of pipelines in memory with their reference: a small study, as a card reports it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from diffusers import DiffusionPipeline

from contract.card import Statistic
from quant.fidelity.arm import REFERENCE, pipeline_arm
from quant.fidelity.backbone import Backbones
from quant.fidelity.metric import metric
from quant.fidelity.statistics import summarize
from quant.fidelity.study import Study, batches
from quant.sampling.progress import Progress
from quant.sampling.prompts import Prompt
from quant.sampling.request import Sampling

STAGE = "measure"
"""What progress calls it."""


def consistency(
    reference: DiffusionPipeline,
    pipelines: Mapping[str, DiffusionPipeline],
    prompts: Sequence[Prompt],
    sampling: Sampling,
    metrics: Sequence[str],
    on_progress: Progress,
) -> dict[str, dict[str, Statistic]]:
    """How near the pictures of every pipeline are to the reference's: {name: {metric: mean with its interval}}.

    Prompt i has seed `sampling.seed` + i, the same for all. `metrics` are those of single pictures. Raises
    SamplingError for settings that a sampler refuses, EvaluationError for an unknown metric, BackboneMissing,
    InvalidPicture when a picture is not finite or one flat colour, and what `on_progress` raises."""
    asked = tuple(map(metric, metrics))
    study = Study(pipeline_arm(REFERENCE, reference), sampling, asked, Backbones(), strict=True, curves=False)
    cut = batches(prompts, sampling.seed)
    if not cut:
        return {name: {each.key: summarize([]) for each in asked} for name in pipelines}
    arms = [pipeline_arm(name, pipeline) for name, pipeline in pipelines.items()]
    measured = study.measured(arms, cut, partial(on_progress, STAGE))
    return {
        name: {key: summarize(scores.tolist()) for key, scores in measurement.scores.items()}
        for name, measurement in measured.items()
    }
