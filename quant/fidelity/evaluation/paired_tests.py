"""Is one variant better than another? Tests over the prompts that both have drawn from the same noise."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

from quant.fidelity.arm import REFERENCE
from quant.fidelity.document import MeanDifference, VariantComparison
from quant.fidelity.measurement import Measurement
from quant.fidelity.metric import Metric
from quant.fidelity.statistics import paired_difference

SIGNIFICANT = 0.01

By = Mapping[str, Measurement]


def comparisons(
    variants: Mapping[str, By], reference: By, metrics: tuple[Metric, ...]
) -> tuple[VariantComparison, ...]:
    """Every two variants on every metric of single pictures and every prompt set, the better one as `a`; for metrics
    that are not about the reference, every variant against the reference as well."""
    paired = [metric for metric in metrics if not metric.of_sets]
    between = [
        _compare((one, first), (other, second), prompt_set, metric)
        for prompt_set in reference
        for metric in paired
        for (one, first), (other, second) in combinations(variants.items(), 2)
    ]
    own = [metric for metric in paired if metric.traits.identical is None]
    to_reference = [
        _compare((REFERENCE, reference), (name, variant), prompt_set, metric)
        for prompt_set in reference
        for metric in own
        for name, variant in variants.items()
    ]
    return (*between, *to_reference)


def _compare(one: tuple[str, By], other: tuple[str, By], prompt_set: str, metric: Metric) -> VariantComparison:
    scores = [by[prompt_set].scores[metric.key].tolist() for _, by in (one, other)]
    difference = paired_difference(*scores)
    sign = 1.0 if metric.traits.better == "higher" else -1.0
    if (difference.mean or 0.0) * sign < 0.0:
        one, other = other, one
        difference = paired_difference(scores[1], scores[0])
    return VariantComparison(
        a=one[0],
        b=other[0],
        prompt_set=prompt_set,
        metric=metric.key,
        difference=MeanDifference(mean=difference.mean, ci95=difference.ci95, count=difference.count),
        p=difference.p,
        sentence=_sentence(one[0], other[0], metric.key, difference.p),
    )


def _sentence(a: str, b: str, metric: str, p: float | None) -> str:
    if p is None:
        return f"{a} and {b} are not told apart on {metric}: too few prompts"
    if p >= SIGNIFICANT:
        return f"{a} and {b} are not told apart on {metric}, p = {p:.2g}"
    return f"{a} is better than {b} on {metric}, p = {p:.2g}"
