"""Which pictures of a variant are farthest from the reference's."""

from __future__ import annotations

from collections.abc import Mapping

from quant.fidelity.arm import Arm
from quant.fidelity.measurement import Measurement
from quant.fidelity.report.worst_pair import WorstPair
from quant.fidelity.study import BATCH, Batch, Study

COUNT = 4
RANKED_BY = ("ssim", "psnr", "latent_mse")
"""The first of these that was measured decides."""


def worst_pairs(
    study: Study, arm: Arm, cut: Mapping[str, list[Batch]], measured: Mapping[str, Measurement]
) -> list[WorstPair]:
    """The `COUNT` worst pictures of each prompt set, the worst first; none where no such metric was measured."""
    measurable = {metric.name: metric for metric in study.metrics}
    ranking = next((measurable[name] for name in RANKED_BY if name in measurable), None)
    if ranking is None:
        return []
    pairs: list[WorstPair] = []
    for name, batches in cut.items():
        scores = measured[name].scores[ranking.key]
        finite = scores.isfinite().nonzero().flatten().tolist()
        ranked = sorted(finite, key=lambda i: float(scores[i]), reverse=ranking.traits.better == "lower")
        worst = ranked[:COUNT]
        pictures = {  # in the order of batches, so that each is drawn again once
            place: study.pictures(arm, batches[place // BATCH], place % BATCH) for place in sorted(worst)
        }
        for place in worst:
            prompt, score = batches[place // BATCH].prompts[place % BATCH], float(scores[place])
            pairs.append(WorstPair(arm.name, name, prompt, ranking.key, score, *pictures[place]))
    return pairs
