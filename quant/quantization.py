"""From a recipe to a variant: calibrate, write the checkpoint, measure what was written, sign it with a card."""

from __future__ import annotations

import importlib.metadata
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from torch import nn

import quant.methods
from contract.card import Card, ConsistencyReport, SamplerSignature
from contract.catalogue import ModelDescription
from contract.recipe import Recipe
from quant.calibration.observation import Progress
from quant.checkpoint import CARD, denoiser_bytes, digest, save_checkpoint
from quant.comparison import CONSISTENCY, bfloat16_copy, evaluate
from quant.errors import RecipeMismatch
from quant.generation import Sampling
from quant.layout import quantized_layers
from quant.memory import PeakMemory
from quant.pipelines import denoiser_of, load_reference, load_unsigned
from quant.prompts import Prompt
from quant.registry import family_of, find

HELD_OUT_SEED = 1_000_000
"""Seed of the first picture of a report; calibration's own seeds are far below."""


@dataclass(frozen=True)
class Quantization:
    """What to make: the variant's name, the model, the recipe, the prompts to calibrate on and those to report on."""

    model: str
    description: ModelDescription
    recipe: Recipe
    variant: str
    calibration: list[Prompt]
    held_out: list[Prompt]
    prompt_set: str


def quantize(job: Quantization, folder: Path, on_progress: Progress) -> Card:
    """Writes the checkpoint and its card to `folder`, which must be empty, and returns the card.

    `on_progress` gets (stage, done, total) for the stages calibrate, save, measure. Raises RecipeMismatch when recipe
    and model or the two prompt lists do not fit, ModelError, and QuantError from calibration."""
    _check(job)
    started, memory = time.monotonic(), PeakMemory()
    pipeline = load_reference(job.description)
    method = find(quant.methods, job.recipe.method)
    layout = method.quantize(pipeline, job.recipe, _runs(job), on_progress)
    cost = _Cost(time.monotonic() - started, memory.resident_bytes)
    on_progress("save", 0, 1)
    folder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(pipeline, denoiser_of(pipeline), layout, folder)
    on_progress("save", 1, 1)
    del pipeline
    card = _card(job, folder, cost, on_progress)
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return card


def _check(job: Quantization) -> None:
    if job.recipe.family != job.description.family:
        raise RecipeMismatch(f"the recipe is for {job.recipe.family}, {job.model} is {job.description.family}")
    shared = {prompt.text for prompt in job.calibration} & {prompt.text for prompt in job.held_out}
    if shared:
        raise RecipeMismatch(f"{len(shared)} calibration prompts are also held out for the report: {min(shared)!r}")
    if len(job.calibration) < job.recipe.calibration.num_prompts:
        raise RecipeMismatch(
            f"the recipe calibrates on {job.recipe.calibration.num_prompts} prompts, there are {len(job.calibration)}"
        )


def _sampling(job: Quantization) -> Sampling:
    inputs = job.recipe.calibration
    return Sampling(
        prompt="",
        seed=inputs.seed,
        num_inference_steps=inputs.num_inference_steps,
        guidance_scale=inputs.guidance_scale,
        width=job.description.width,
        height=job.description.height,
    )


def _runs(job: Quantization) -> list[Sampling]:
    prompts = job.calibration[: job.recipe.calibration.num_prompts]
    base = _sampling(job)
    return [replace(base, prompt=prompt.text, seed=base.seed + i) for i, prompt in enumerate(prompts)]


@dataclass(frozen=True)
class _Cost:
    seconds: float
    peak_bytes: int


def _card(job: Quantization, folder: Path, cost: _Cost, on_progress: Progress) -> Card:
    reference = load_reference(job.description)
    served = load_unsigned(folder)
    sampling = replace(_sampling(job), seed=HELD_OUT_SEED)
    arms = {"variant": served, "noise_floor": bfloat16_copy(reference)}
    measured = evaluate(reference, arms, job.held_out, sampling, CONSISTENCY, on_progress)
    return Card(
        model=job.model,
        variant=job.variant,
        recipe=job.recipe,
        digest=digest(folder),
        created=datetime.now(UTC),
        signature=_signature(reference, sampling),
        calibration_prompt_ids=tuple(p.id for p in job.calibration[: job.recipe.calibration.num_prompts]),
        calibration_seconds=round(cost.seconds, 3),
        calibration_peak_bytes=cost.peak_bytes,
        quantized_layers=len(quantized_layers(denoiser_of(served))),
        float_layers=_float_layers(served),
        denoiser_bytes=denoiser_bytes(folder, family_of(served).DENOISER),
        reference_denoiser_bytes=sum(4 * p.numel() for p in denoiser_of(reference).parameters()),
        report=ConsistencyReport(
            prompt_set=job.prompt_set,
            prompt_ids=tuple(prompt.id for prompt in job.held_out),
            seed=HELD_OUT_SEED,
            metrics=measured["variant"],
            noise_floor=measured["noise_floor"],
        ),
        versions={name: importlib.metadata.version(name) for name in ("diffusers", "transformers")}
        | {"torch": str(torch.__version__)},
    )


def _float_layers(pipeline: DiffusionPipeline) -> tuple[str, ...]:
    modules = denoiser_of(pipeline).named_modules()
    return tuple(name for name, module in modules if isinstance(module, nn.Linear | nn.Conv2d))


def _signature(pipeline: DiffusionPipeline, sampling: Sampling) -> SamplerSignature:
    return SamplerSignature(
        scheduler=type(pipeline.scheduler).__name__,
        prediction_type=pipeline.scheduler.config.prediction_type,
        num_inference_steps=sampling.num_inference_steps,
        guidance_scale=sampling.guidance_scale,
        width=sampling.width,
        height=sampling.height,
    )
