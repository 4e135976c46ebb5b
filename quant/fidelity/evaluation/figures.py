"""Statistics of one arm on one prompt set, and of two sets against each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from contract.card import Statistic
from quant.fidelity.document import Figures
from quant.fidelity.measurement import Measurement
from quant.fidelity.metric import Metric
from quant.fidelity.metrics.trajectory import first_diverging_step
from quant.fidelity.statistics import Spread, of_halves, spread, unpaired_difference

SPLITS = 20
TO_REAL = "_to_real"

Indices = NDArray[np.intp]


def figures(
    reference: Measurement, measured: Measurement, metrics: tuple[Metric, ...], real: Mapping[str, Tensor]
) -> Figures:
    """A statistic per metric; `<metric>_to_real` for distances of sets where there are real pictures; and the first
    step at which trajectories diverge."""
    by_metric: Figures = {
        metric.key: _set_distance(reference, measured, metric) if metric.of_sets else _scores(measured, metric)
        for metric in metrics
    }
    return by_metric | _to_real(measured, real, metrics) | {"first_diverging_step": _diverging(measured)}


def own_figures(measured: Measurement, metrics: tuple[Metric, ...], real: Mapping[str, Tensor]) -> Figures:
    """Of the statistics those that are not about the reference."""
    own: Figures = {metric.key: _scores(measured, metric) for metric in metrics if metric.traits.identical is None}
    return own | _to_real(measured, real, metrics)


def finite_sample(first: Measurement, second: Measurement, metrics: tuple[Metric, ...]) -> Figures:
    """Distances between random halves of the reference's pictures of two seeds, each half as large as one set: what
    sampling alone gives at this number of pictures. Mean and 2.5th to 97.5th percentile over `SPLITS` divisions."""
    return {metric.key: _splits(first, second, metric) for metric in metrics if metric.of_sets}


def gap(
    reference: Mapping[str, Measurement],
    measured: Mapping[str, Measurement],
    sets: tuple[str, str],
    metrics: tuple[Metric, ...],
) -> dict[str, Statistic]:
    """How much worse a variant is on the second set than on the first, per metric, in the metric's own unit: positive
    is worse, whichever direction is better."""
    home, away = sets
    gaps: dict[str, Statistic] = {}
    for metric in metrics:
        better, worse = (home, away) if metric.traits.better == "higher" else (away, home)
        if metric.of_sets:
            ends = [_set_distance(reference[each], measured[each], metric) for each in (better, worse)]
            gaps[metric.key] = _less(*ends)
        else:
            scores = [measured[each].scores[metric.key].tolist() for each in (better, worse)]
            gaps[metric.key] = unpaired_difference(scores[0], scores[1])
    return gaps


def _scores(measured: Measurement, metric: Metric) -> Spread:
    return spread(measured.scores[metric.key].tolist())


def _set_distance(reference: Measurement, measured: Measurement, metric: Metric) -> Statistic:
    valid = reference.valid & measured.valid
    first, second = (each.features[metric.backbone][valid] for each in (reference, measured))
    return _halved(lambda places: metric.module.distance(first[places], second[places]), int(valid.sum()))


def _to_real(measured: Measurement, real: Mapping[str, Tensor], metrics: tuple[Metric, ...]) -> Figures:
    distances: Figures = {}
    for metric in metrics:
        if metric.of_sets and metric.backbone in real:
            mine, theirs = measured.features[metric.backbone][measured.valid], real[metric.backbone]
            distance = partial(_to_subset, metric, theirs, mine)
            distances[f"{metric.key}{TO_REAL}"] = _halved(distance, len(mine))
    return distances


def _to_subset(metric: Metric, first: Tensor, second: Tensor, places: Indices) -> float:
    value: float = metric.module.distance(first, second[places])
    return value


def _halved(statistic: Callable[[Indices], float], count: int) -> Statistic:
    if count < 2:
        return Statistic(mean=None, count=count, reason="a distance between distributions needs two pictures or more")
    return of_halves(statistic, count)


def _splits(first: Measurement, second: Measurement, metric: Metric) -> Statistic:
    valid = first.valid & second.valid
    count = int(valid.sum())
    if count < 2:
        return Statistic(mean=None, count=count, reason="a distance between distributions needs two pictures or more")
    pooled = np.concatenate([each.features[metric.backbone][valid].numpy() for each in (first, second)])
    rng = np.random.default_rng(0)
    values = []
    for _ in range(SPLITS):
        order = rng.permutation(2 * count)
        halves = [Tensor(pooled[np.sort(order[part])]) for part in (slice(count), slice(count, None))]
        values.append(metric.module.distance(*halves))
    low, high = (float(value) for value in np.percentile(values, (2.5, 97.5)))
    return Statistic(mean=float(np.mean(values)), ci95=(low, high), count=count)


def _less(better: Statistic, worse: Statistic) -> Statistic:
    if better.mean is None or worse.mean is None:
        return Statistic(mean=None, count=0, reason="no distance on one side")
    difference = better.mean - worse.mean
    if better.ci95 is None or worse.ci95 is None:
        return Statistic(mean=difference, count=min(better.count, worse.count))
    margin = math.hypot(better.ci95[1] - better.mean, worse.ci95[1] - worse.mean)
    interval = (difference - margin, difference + margin)
    return Statistic(mean=difference, ci95=interval, count=min(better.count, worse.count))


def _diverging(measured: Measurement) -> Spread:
    steps = first_diverging_step(measured.trajectory[measured.valid]).tolist()
    first = spread([step if math.isfinite(step) else None for step in steps])
    never = sum(not math.isfinite(step) for step in steps)
    return first.model_copy(update={"reason": f"{never} of {len(steps)} never diverge" if never else None})
