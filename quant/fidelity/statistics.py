"""Means with intervals and tests between two variants, honest about what cannot be averaged.

Everything is drawn with seed 0, so the same values give the same figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, permutation_test

from contract.card import Statistic

RESAMPLES = 2000
FLIPS = 4_999
HALVES = 100
FEWEST_FOR_HALVES = 20

Value = float | None
Values = NDArray[np.float64]


class Spread(Statistic):
    """A statistic with the median and the 5th and 95th percentile of the values."""

    median: float | None = None
    p5: float | None = None
    p95: float | None = None


@dataclass(frozen=True)
class Difference:
    """The mean of a - b over what both have, its 95 % bootstrap interval, and the two-sided p of a sign-flip
    permutation test of the mean (None for fewer than two values)."""

    mean: float | None
    ci95: tuple[float, float] | None
    p: float | None
    count: int


def summarize(values: Sequence[Value]) -> Statistic:
    """Mean and 95 % percentile bootstrap interval of a metric's values. None, infinities and NaN are left out and told
    of in `reason`."""
    finite = _finite(values)
    reason = _reason(len(values) - len(finite), len(values))
    if not len(finite):
        return Statistic(mean=None, count=0, reason=reason or "no values")
    return Statistic(mean=float(finite.mean()), ci95=_interval(finite), count=len(finite), reason=reason)


def spread(values: Sequence[Value]) -> Spread:
    """As `summarize`, with percentiles."""
    mean, finite = summarize(values), _finite(values)
    if not len(finite):
        return Spread(**mean.model_dump())
    p5, median, p95 = (float(value) for value in np.percentile(finite, (5, 50, 95)))
    return Spread(**mean.model_dump(), median=median, p5=p5, p95=p95)


def plain(statistic: Statistic) -> Statistic:
    """A statistic without percentiles, whether it has any or not."""
    return Statistic(mean=statistic.mean, ci95=statistic.ci95, count=statistic.count, reason=statistic.reason)


def paired_difference(a: Sequence[Value], b: Sequence[Value]) -> Difference:
    """What a - b is on average, value i of both belonging to the same prompt and seed; pairs with a value that is
    undefined or infinite are left out."""
    first, second = np.array(a, dtype=np.float64), np.array(b, dtype=np.float64)
    both = np.isfinite(first) & np.isfinite(second)
    difference = first[both] - second[both]
    if len(difference) < 2:
        return Difference(float(difference[0]) if len(difference) else None, None, None, len(difference))
    test = permutation_test(
        (difference,),
        lambda sample, axis: sample.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=FLIPS,
        batch=500,
        rng=np.random.default_rng(0),
    )
    p = 1.0 if not difference.any() else float(test.pvalue)
    return Difference(float(difference.mean()), _interval(difference), p, len(difference))


def unpaired_difference(a: Sequence[Value], b: Sequence[Value]) -> Statistic:
    """The difference of the means of two independent samples, a's less b's, with its bootstrap interval."""
    left, right = _finite(a), _finite(b)
    if not len(left) or not len(right):
        return Statistic(mean=None, count=0, reason="no values on one side")
    interval = None
    if min(len(left), len(right)) > 1:
        found = bootstrap(
            (left, right),
            lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis),
            n_resamples=RESAMPLES,
            method="percentile",
            vectorized=True,
            rng=np.random.default_rng(0),
        ).confidence_interval
        interval = (float(found.low), float(found.high))
    return Statistic(mean=float(left.mean() - right.mean()), ci95=interval, count=min(len(left), len(right)))


def of_halves(statistic: Callable[[NDArray[np.intp]], float], count: int) -> Statistic:
    """A statistic of a whole set of `count` pictures, given as a function of their indices, and its 95 % interval.

    A bootstrap sample repeats pictures, which shifts distances between distributions; random halves without repetition
    do not, and their standard deviation is the standard error of the whole (delete-half jackknife, Shao and Wu 1989).
    The interval is the value and 1.96 of those to both sides."""
    value = statistic(np.arange(count))
    if not math.isfinite(value):
        return Statistic(mean=None, count=count, reason="the distance is not finite")
    if count < FEWEST_FOR_HALVES:
        return Statistic(mean=value, count=count, reason=f"no interval for fewer than {FEWEST_FOR_HALVES} pictures")
    rng = np.random.default_rng(0)
    halves = [statistic(np.sort(rng.permutation(count)[: count // 2])) for _ in range(HALVES)]
    margin = 1.96 * float(np.std(halves, ddof=1))
    return Statistic(mean=value, ci95=(value - margin, value + margin), count=count)


def _finite(values: Sequence[Value]) -> Values:
    numbers = np.array(values, dtype=np.float64)  # None becomes NaN
    return numbers[np.isfinite(numbers)]


def _reason(left_out: int, count: int) -> str | None:
    return f"{left_out} of {count} values are undefined or infinite and left out" if left_out else None


def _interval(finite: Values) -> tuple[float, float] | None:
    if len(finite) < 2:
        return None
    if float(np.ptp(finite)) == 0.0:
        return (float(finite[0]), float(finite[0]))
    found = bootstrap(
        (finite,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return (float(found.low), float(found.high))
