"""The pictures that are farthest from the reference's: a mean hides them, a reader wants to see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from quant.fidelity.arm import Arm
from quant.fidelity.measurement import Measurement
from quant.fidelity.run import BATCH, Batch, Run
from quant.sampling.prompts import Prompt

COUNT = 4
RANKED_BY = ("ssim", "psnr", "latent_mse")
"""The first of these that was measured decides."""


@dataclass(frozen=True)
class WorstPair:
    """A prompt's picture by the reference and by a variant, float32 [3, H, W] in [0, 1], and the score that it has."""

    variant: str
    prompt_set: str
    prompt: Prompt
    metric: str
    score: float
    reference_values: Tensor
    variant_values: Tensor


def worst_pairs(
    run: Run, arm: Arm, cut: Mapping[str, list[Batch]], measured: Mapping[str, Measurement]
) -> list[WorstPair]:
    """The `COUNT` worst pictures of each prompt set, the worst first."""
    measurable = {metric.name: metric for metric in run.metrics}
    ranking = next((measurable[name] for name in RANKED_BY if name in measurable), None)
    if ranking is None:
        return []
    found: list[WorstPair] = []
    for name, batches in cut.items():
        scores = measured[name].scores[ranking.key]
        finite = scores.isfinite().nonzero().flatten().tolist()
        ranked = sorted(finite, key=lambda i: float(scores[i]), reverse=ranking.traits.better == "lower")
        for place in ranked[:COUNT]:
            batch, index = batches[place // BATCH], place % BATCH
            pictures = run.pictures(arm, batch, index)
            prompt, score = batch.prompts[index], float(scores[place])
            found.append(WorstPair(arm.name, name, prompt, ranking.key, score, *pictures))
    return found
