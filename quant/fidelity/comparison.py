"""Reference against variant on the same noise: one request, or many prompts with intervals and the noise floor."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from diffusers import DiffusionPipeline
from PIL import Image

from contract.card import Statistic
from quant.fidelity.backbone import Backbones
from quant.fidelity.difference_map import difference_map
from quant.fidelity.metric import metric
from quant.fidelity.pair import Pair
from quant.fidelity.statistics import summarize
from quant.sampling.generation import Generation, OnStep, generate, generate_batch
from quant.sampling.prompts import Prompt
from quant.sampling.request import Sampling

CONSISTENCY = ("psnr", "ssim", "latent_mse")
"""The metrics that need nothing but the two pictures."""

BATCH = 8

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Comparison:
    """Both arms, the metrics by name with one value per picture (None: infinite, since the two are identical, or not
    defined), and a picture of where they differ."""

    reference: Generation
    variant: Generation
    metrics: dict[str, list[float | None]]
    differences: list[Image.Image]


def measure(pair: Pair, metrics: tuple[str, ...]) -> dict[str, list[float | None]]:
    """Every metric's value for every picture; None where it is infinite or not defined."""
    scores = {asked.key: asked.module.score(pair, asked.backbone) for asked in map(metric, metrics)}
    return {key: [v if math.isfinite(v) else None for v in score.tolist()] for key, score in scores.items()}


def compare(
    reference: DiffusionPipeline,
    variant: DiffusionPipeline,
    sampling: Sampling,
    on_step: OnStep | None = None,
    metrics: tuple[str, ...] = CONSISTENCY,
) -> Comparison:
    """Draws one request with both pipelines. `on_step` counts the steps of both. Raises what `generate` raises."""

    def arm(offset: int) -> OnStep:
        return lambda step, total: on_step(offset * total + step, 2 * total) if on_step else None

    first = generate(reference, sampling, arm(0))
    second = generate(variant, sampling, arm(1))
    pair = Pair(first, second, [Prompt("", sampling.prompt)] * sampling.num_images, Backbones())
    maps = [difference_map(a, b) for a, b in zip(first.values, second.values, strict=True)]
    return Comparison(first, second, measure(pair, metrics), maps)


def evaluate(
    reference: DiffusionPipeline,
    variants: dict[str, DiffusionPipeline],
    prompts: list[Prompt],
    sampling: Sampling,
    metrics: tuple[str, ...],
    on_progress: Progress,
) -> dict[str, dict[str, Statistic]]:
    """Metrics of every variant against the reference over `prompts`, paired by seed (prompt i has seed
    `sampling.seed` + i), each with its interval: {variant: {metric: statistic}}."""
    values: dict[str, dict[str, list[float | None]]] = {name: {m: [] for m in metrics} for name in variants}
    backbones = Backbones()
    for start in range(0, len(prompts), BATCH):
        batch = prompts[start : start + BATCH]
        texts = [prompt.text for prompt in batch]
        seeds = replace(sampling, seed=sampling.seed + start, num_images=len(batch)).seeds
        first = generate_batch(reference, texts, seeds, sampling)
        for name, pipeline in variants.items():
            pair = Pair(first, generate_batch(pipeline, texts, seeds, sampling), batch, backbones)
            for key, scores in measure(pair, metrics).items():
                values[name][key] += scores
        on_progress("measure", start + len(batch), len(prompts))
    return {name: {m: summarize(scores) for m, scores in by.items()} for name, by in values.items()}
