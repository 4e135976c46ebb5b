"""Results of the study of methods made by hand: what its tests use in place of hours of calibration."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.methods.arms import Arm
from benchmarks.methods.task import Protocol

Json = dict[str, Any]
COUNT = 64


def made_result(arm: Arm, error: float, seconds: float = 100.0, protocol: Protocol | None = None) -> Json:
    """A result of an arm with a recipe: 1 - SSIM and the Fréchet distance are `error` on every prompt set, prompt by
    prompt with noise that all arms share in part."""
    if arm.recipe is None or arm.stages is None:
        raise ValueError(f"{arm.name} has no recipe")
    followed = (protocol or Protocol()).of(arm.group)
    sets = followed.prompt_sets
    noise = np.random.default_rng(len(arm.name)).normal(0.0, 0.05 * error, COUNT)
    ssim = [round(float(value), 7) for value in 1.0 - error - noise + noise.mean()]
    figures = {
        "ssim": _statistic(1.0 - error, 0.1 * error),
        "latent_mse": _statistic(error, 0.1 * error),
        "frechet:judge": _statistic(100.0 * error, error),
        "prompt_accuracy": _statistic(0.99 - error, 0.001),
    }
    floor = {"ssim": _statistic(0.999, 0.0001)}
    return {
        "question": "methods",
        "arm": arm.name,
        "preset": arm.preset,
        "bits": arm.bits,
        "group": arm.group,
        "date": "2026-11-21",
        "identity": arm.identity,
        "recipe": arm.recipe.model_dump(mode="json"),
        "stages": arm.stages.model_dump(mode="json"),
        "protocol": followed.model_dump(mode="json"),
        "seeds": {"calibration": 0, "evaluation": 2_000_000},
        "prompt_sets": {name: {"count": COUNT, "digest": name} for name in sets},
        "figures": dict.fromkeys(sets, figures),
        "generalization": {sets[-1]: {"ssim": _statistic(0.001, 0.0005)}},
        "curves": {name: [error * step for step in range(1, 6)] for name in sets},
        "floors": {"bfloat16": dict.fromkeys(sets, floor)},
        "floor_curves": {"bfloat16": dict.fromkeys(sets, [0.001] * 5)},
        "reference": {name: {"prompt_accuracy": _statistic(0.995, 0.001)} for name in sets},
        "paired": {name: {"ssim": ssim, "latent_mse": [1.0 - value for value in ssim]} for name in sets},
        "calibration": {"seconds": seconds, "peak_bytes": 10**9, "disturbance": 0.01},
        "denoiser_bytes": 8_000_000,
        "code": {"calibrating": "c0de"},
        "machine": {"processor": "a processor", "threads": 2, "flags": ["amx_bf16"]},
        "versions": {"torch": "2.13.0"},
    }


def _statistic(mean: float, margin: float) -> Json:
    return {"mean": mean, "ci95": [mean - margin, mean + margin], "count": COUNT, "reason": None}
