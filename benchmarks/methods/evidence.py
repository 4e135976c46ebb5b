"""What results say of two or more arms: figures, reductions, and tests over the prompts that both have drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from quant.fidelity.statistics import RESAMPLES, Difference, paired_difference

Json = dict[str, Any]
Results = Mapping[str, Json]

FRECHET, SSIM = "frechet:judge", "ssim"
BETTER_IS_LOWER = ("latent_mse",)
"""Of the metrics that are kept prompt by prompt."""
SMALLEST = 1e-9
"""What an error of nothing counts as where logarithms are taken."""


OTHERWISE = 0.1
"""1 - SSIM above which a picture counts as another one."""


class NotMeasured(Exception):
    """A figure that is not there, in a sentence."""


def has_tiles(result: Json) -> bool:
    """Whether the arm was calibrated with AMX tiles, where it multiplies in bfloat16; without, it does in float32."""
    return "amx_bf16" in result["machine"]["flags"]


def processor(result: Json) -> str:
    """What seconds are of: those of one processor cannot be held against those of another."""
    found = result["machine"]
    threads = f"{found['threads']} thread{'s' if found['threads'] != 1 else ''}"
    return f"{found['processor']} {'with' if has_tiles(result) else 'without'} AMX, {threads}"


def result_of(results: Results, arm: str) -> Json:
    """The result of an arm. Raises NotMeasured."""
    if arm not in results:
        raise NotMeasured(arm)
    return results[arm]


def primary(result: Json) -> str:
    """The prompt set that decides."""
    name: str = result["protocol"]["prompt_sets"][0]
    return name


def mean(result: Json, metric: str, prompt_set: str, part: str = "figures") -> float:
    """A mean of a result, or of its `reference`. Raises NotMeasured."""
    return _mean(result[part].get(prompt_set, {}).get(metric), f"{result['arm']}.{prompt_set}.{metric}")


def floor(result: Json, name: str, metric: str, prompt_set: str) -> float:
    """A floor's mean. Raises NotMeasured."""
    found = result["floors"].get(name, {}).get(prompt_set, {}).get(metric)
    return _mean(found, f"floors.{name}.{prompt_set}.{metric}")


def error(result: Json, metric: str, prompt_set: str) -> float:
    """How far from the reference a metric says the pictures are: 1 - SSIM, or the metric itself."""
    value = mean(result, metric, prompt_set)
    return 1.0 - value if metric == SSIM else value


def paired(first: Json, second: Json, metric: str, prompt_set: str) -> Difference:
    """How much better the first is, prompt by prompt: positive is better. Raises NotMeasured where the two were not
    measured on the same prompts and seeds."""
    scores = _scores(first, second, metric, prompt_set)
    if metric in BETTER_IS_LOWER:
        scores.reverse()
    return _difference(*(tuple(each) for each in scores))


def typical_ratio(first: Json, second: Json, metric: str, prompt_set: str) -> Json:
    """The first one's error over the second one's in the geometric mean over prompts, which the few that take another
    branch do not decide, with the interval and p of the logarithms. Raises NotMeasured as `paired`."""
    logs = [
        tuple(None if score is None else _log_error(score, metric) for score in each)
        for each in _scores(first, second, metric, prompt_set)
    ]
    found = _difference(*logs)
    interval = [math.exp(end) for end in found.ci95] if found.ci95 else None
    return {"ratio": None if found.mean is None else math.exp(found.mean), "ci95": interval, "p": found.p}


def mean_ratio(first: Json, second: Json, metric: str, prompt_set: str) -> Json:
    """The first one's mean error over the second one's, with the 95 % bootstrap interval over prompts. Raises
    NotMeasured as `paired`."""
    pairs = zip(*_scores(first, second, metric, prompt_set), strict=True)
    both = [(_error(a, metric), _error(b, metric)) for a, b in pairs if a is not None and b is not None]
    return _ratio(tuple(both))


def drawn_otherwise(result: Json, prompt_set: str) -> int:
    """Pictures whose SSIM says that something else was drawn: the error made the sampler take another branch."""
    scores = result["paired"].get(prompt_set, {}).get(SSIM, [])
    return sum(score is not None and 1.0 - score > OTHERWISE for score in scores)


@cache
def _ratio(errors: tuple[tuple[float, float], ...]) -> Json:
    own, others = np.array(errors, dtype=np.float64).reshape(-1, 2).T
    if len(own) < 2 or not others.mean() > 0.0:
        return {"ratio": None, "ci95": None}
    found = bootstrap(
        (own, others),
        lambda a, b, axis: a.mean(axis=axis) / b.mean(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return {"ratio": float(own.mean() / others.mean()), "ci95": [float(found.low), float(found.high)]}


def typical(result: Json, prompt_set: str) -> float:
    """1 - SSIM of a typical picture: the geometric mean over prompts. Raises NotMeasured."""
    scores = result["paired"].get(prompt_set, {}).get(SSIM) or []
    logs = [_log_error(score, SSIM) for score in scores if score is not None]
    if not logs:
        raise NotMeasured(f"{result['arm']}, {SSIM} of every prompt of {prompt_set}")
    return math.exp(math.fsum(logs) / len(logs))


def _error(score: float, metric: str) -> float:
    return score if metric in BETTER_IS_LOWER else 1.0 - score


def _log_error(score: float, metric: str) -> float:
    return math.log(max(_error(score, metric), SMALLEST))


def _scores(first: Json, second: Json, metric: str, prompt_set: str) -> list[list[float | None]]:
    names = f"{first['arm']} and {second['arm']}"
    digests = [each["prompt_sets"].get(prompt_set, {}).get("digest") for each in (first, second)]
    seeds = [each["seeds"]["evaluation"] for each in (first, second)]
    if None in digests or digests[0] != digests[1] or seeds[0] != seeds[1]:
        raise NotMeasured(f"{names} on the same prompts of {prompt_set}")
    scores = [each["paired"].get(prompt_set, {}).get(metric) for each in (first, second)]
    if None in scores:
        raise NotMeasured(f"{names}, {metric} of every prompt of {prompt_set}")
    return scores


def difference_json(difference: Difference) -> Json:
    """A difference as JSON values."""
    interval = list(difference.ci95) if difference.ci95 else None
    return {"better_by": difference.mean, "ci95": interval, "p": difference.p, "count": difference.count}


@cache
def _difference(a: tuple[float | None, ...], b: tuple[float | None, ...]) -> Difference:
    return paired_difference(a, b)


def _mean(statistic: Json | None, name: str) -> float:
    if statistic is None or statistic["mean"] is None:
        raise NotMeasured(name)
    value: float = statistic["mean"]
    return value
