"""Benches on the toy model: what tests of calibration start from."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from diffusers import StableDiffusionPipeline
from torch import Tensor

from contract.recipe import CalibrationRun, Recipe
from contract.stages import ORDER, Stages
from quant.calibration.bench import Bench, open_bench
from quant.calibration.run import Run
from quant.calibration.stage import stages as all_stages
from quant.calibration.stages import inputs
from quant.calibration.trajectories import Drawn
from quant.calibration.trajectories import final_latents as where_walks_end
from tests.support.tiny_world import KEPT
from tests.support.toy_model import PROMPTS, build_toy_pipeline, toy_sampling

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
) -> Bench:
    """The bench as it is before the first stage: W4A6 unless the recipe's options say otherwise."""
    options = {"weight_bits": 4, "activation_bits": 6, "keep_float": KEPT} | recipe
    run = CalibrationRun(num_prompts=prompts, num_inference_steps=steps, guidance_scale=guidance_scale, seed=seed)
    texts = tuple(PROMPTS[i % len(PROMPTS)] for i in range(prompts))
    drawn = Run(texts, toy_sampling(steps, guidance_scale, seed))
    return open_bench(pipeline or toy_pipeline(), Recipe(method="minmax", calibration=run, **options), stages, drawn)


def draw(bench: Bench) -> Drawn:
    """The calibration inputs, which all other stages work on."""
    return inputs.draw(bench.stages.inputs, bench)


def apply(stage: str, bench: Bench, drawn: Drawn) -> None:
    """One stage, in place."""
    all_stages()[stage].apply(getattr(bench.stages, stage), bench, drawn)


def run_stages(bench: Bench, until: str = ORDER[-1]) -> Drawn:
    """All stages up to `until`, in place."""
    drawn = draw(bench)
    for stage in ORDER[: ORDER.index(until) + 1]:
        apply(stage, bench, drawn)
    return drawn


def calibrated(stages: Stages, until: str = ORDER[-1], **options: Any) -> tuple[Bench, Drawn]:
    """A bench after all stages up to `until`, and what they worked on."""
    bench = open_toy(stages, **options)
    return bench, run_stages(bench, until)


def final_latents(bench: Bench, *, student: bool, count: int = 64, first: int = 1000) -> Tensor:
    """Final latents of `count` pictures that calibration has not seen, float32 [count, 4, 8, 8]."""
    denoiser = bench.student.denoiser if student else bench.reference
    return where_walks_end(bench.walks(count, first, batch=64), bench.denoise(denoiser))


def final_error(bench: Bench, count: int = 64, first: int = 1000) -> float:
    """Mean squared error of those, student against reference, relative to the reference's mean square."""
    truth = final_latents(bench, student=False, count=count, first=first)
    latents = final_latents(bench, student=True, count=count, first=first)
    return float((latents - truth).pow(2).mean() / truth.pow(2).mean())
