"""Means with bootstrap intervals, honest about what cannot be averaged."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import bootstrap

from contract.card import Statistic

RESAMPLES = 2000


def summarize(values: list[float | None]) -> Statistic:
    """Mean and 95 % percentile bootstrap interval (seed 0) of a metric's values. None, infinities and NaN are left out
    and told of in `reason`."""
    finite = np.array([value for value in values if value is not None and math.isfinite(value)], dtype=np.float64)
    left_out = len(values) - len(finite)
    reason = f"{left_out} of {len(values)} values are undefined or infinite and left out" if left_out else None
    if not len(finite):
        return Statistic(mean=None, count=0, reason=reason or "no values")
    if len(finite) < 2 or float(np.ptp(finite)) == 0.0:
        mean = float(finite.mean())
        return Statistic(mean=mean, ci95=(mean, mean) if len(finite) > 1 else None, count=len(finite), reason=reason)
    interval = bootstrap(
        (finite,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return Statistic(
        mean=float(finite.mean()), ci95=(float(interval.low), float(interval.high)), count=len(finite), reason=reason
    )
