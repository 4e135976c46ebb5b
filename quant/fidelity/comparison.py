"""One request drawn by the reference and by a variant on the same noise, measured and shown."""

from __future__ import annotations

import math
from dataclasses import dataclass

from diffusers import DiffusionPipeline
from PIL import Image

from quant.fidelity.backbone import Backbones
from quant.fidelity.difference_map import difference_map
from quant.fidelity.metric import metric
from quant.fidelity.metric_choice import CONSISTENCY
from quant.fidelity.pair import Pair
from quant.sampling.generation import Generation, OnStep, generate
from quant.sampling.prompts import Prompt
from quant.sampling.request import Sampling


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
