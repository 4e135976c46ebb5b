"""Workbenches on the toy model: what tests of calibration start from."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from contract.recipe import CalibrationRun, Recipe
from contract.stages import Stages
from quant.calibration.stages import (
    bits,
    bits_over_time,
    fine_tuning,
    inputs,
    ranges,
    rounding,
    time_path,
    weight_scales,
)
from quant.calibration.stages.run import open_bench
from quant.calibration.trajectories import record
from quant.calibration.workbench import Run, Workbench
from quant.sampling.walk import denoise_with
from tests.toy_model import PROMPTS, build_toy_pipeline, toy_sampling

KEPT = ("conv_in", "conv_out", "time_embedding.*", "*.time_emb_proj")
IN_ORDER = (
    inputs, bits, weight_scales, time_path, bits_over_time, rounding, ranges, fine_tuning,
)  # fmt: skip
"""The stages before the export."""

_built = cache(build_toy_pipeline)


def toy_pipeline(scheduler: Any = None, **config: Any) -> StableDiffusionPipeline:
    """A toy pipeline of its own, and if asked with another scheduler."""
    parts = {name: copy.deepcopy(part) for name, part in _built().components.items()}
    if scheduler is not None:
        parts["scheduler"] = scheduler.from_config(parts["scheduler"].config, **config)
    pipeline = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def open_toy(
    stages: Stages,
    *,
    prompts: int = 8,
    steps: int = 6,
    guidance_scale: float = 2.0,
    seed: int = 0,
    pipeline: StableDiffusionPipeline | None = None,
    **recipe: Any,
) -> Workbench:
    """The workbench as it is before the first stage: W4A6 unless the recipe's options say otherwise."""
    options = {"weight_bits": 4, "activation_bits": 6, "keep_float": KEPT} | recipe
    inputs = CalibrationRun(num_prompts=prompts, num_inference_steps=steps, guidance_scale=guidance_scale, seed=seed)
    texts = tuple(PROMPTS[i % len(PROMPTS)] for i in range(prompts))
    found = Run(texts, toy_sampling(steps, guidance_scale, seed))
    return open_bench(pipeline or toy_pipeline(), Recipe(method="minmax", calibration=inputs, **options), stages, found)


def calibrated(stages: Stages, until: Any = None, **options: Any) -> Workbench:
    """A workbench after all stages up to `until`."""
    bench = open_toy(stages, **options)
    run_stages(bench, until)
    return bench


def run_stages(bench: Workbench, until: Any = None) -> None:
    """All stages up to `until`, in place."""
    for stage in IN_ORDER:
        stage.apply(bench)
        if stage is until:
            return


def final_latents(bench: Workbench, *, student: bool, count: int = 64, first: int = 1000) -> Tensor:
    """Final latents of `count` pictures that calibration has not seen, float32 [count, 4, 8, 8]."""
    walks = bench.run.walks(bench.pipeline, count, first, batch=64)
    record(walks, denoise_with(bench.pipeline, bench.student if student else bench.reference), lambda *_: None)
    return torch.cat([walk.latents for walk in walks])


def final_error(bench: Workbench, count: int = 64, first: int = 1000) -> float:
    """Mean squared error of those, student against reference, relative to the reference's mean square."""
    truth = final_latents(bench, student=False, count=count, first=first)
    found = final_latents(bench, student=True, count=count, first=first)
    return float((found - truth).pow(2).mean() / truth.pow(2).mean())
