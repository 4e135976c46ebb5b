"""From a recipe to a variant: calibrate, write the checkpoint, measure what was written, sign it with a card."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from torch import nn

import quant.methods
from contract.card import Card, ConsistencyReport, SamplerSignature
from contract.catalogue import ModelDescription
from contract.errors import RecipeError
from contract.identifier import IDENTIFIER_RULE, is_identifier
from contract.recipe import Recipe
from contract.stages import Stages
from quant.calibration.journal import Journal, sweep
from quant.calibration.stages.run import run
from quant.calibration.workbench import Progress, Run
from quant.checkpoints.checkpoint import CARD, denoiser_bytes, digest, save_checkpoint
from quant.checkpoints.layout import quantized_layers
from quant.checkpoints.output_folder import make_writable
from quant.checkpoints.pipelines import denoiser_of, load_reference, load_unsigned
from quant.discovery import family_of, find
from quant.engine.dtypes import resolved_dtype
from quant.engine.memory import PeakMemory
from quant.errors import RecipeMismatch
from quant.fidelity.bfloat16 import bfloat16_copy
from quant.fidelity.comparison import CONSISTENCY, evaluate
from quant.identity import code_digest, key_of, machine, weights_digest
from quant.sampling.generation import Sampling
from quant.sampling.prompts import Prompt

HELD_OUT_SEED = 1_000_000
"""Seed of the first picture of a report; calibration's own seeds are far below."""

_ABANDONED = 7 * 86_400.0
"""Seconds after which a calibration that was killed is not expected to go on; no single piece takes as long."""


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

    @property
    def exact(self) -> ModelDescription:
        """The model in float32: what calibration computes with, whatever is served."""
        return self.description.model_copy(update={"dtype": "float32"})


def quantize(job: Quantization, folder: Path, on_progress: Progress, journal: Path | None = None) -> Card:
    """Writes the checkpoint and its card to `folder`, which must be empty, and returns the card.

    `journal` is a folder for finished pieces of work: with the same one, a calibration that was killed goes on where it
    was, and gives the same checkpoint; what was done for another job is not taken. It is removed at the end;
    pieces of a calibration that did not go on for a week are removed at the beginning of the next one.
    `on_progress` gets (stage, done, total, note). Before anything is done: RecipeMismatch when a name, recipe and model
    or the two prompt lists do not fit, OutputError for a folder that cannot be written, NotEnoughMemory. Later:
    ModelError, and QuantError from calibration."""
    stages = _check(job)
    make_writable(folder)
    memory = PeakMemory()
    if journal is not None:
        sweep(journal, _ABANDONED)
    finished = Journal(None if journal is None else journal / _identity(job, stages))
    pipeline = load_reference(job.exact)
    layout = run(pipeline, job.recipe, stages, _inputs(job), finished, on_progress)
    cost = _Cost(finished.seconds, memory.resident_bytes)
    on_progress("save", 0, 1)
    save_checkpoint(pipeline, denoiser_of(pipeline), layout, folder)
    on_progress("save", 1, 1)
    del pipeline
    card = _card(job, folder, cost, on_progress)
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    finished.remove()
    return card


def _check(job: Quantization) -> Stages:
    """All stages. Raises RecipeMismatch."""
    recipe = job.recipe
    for what, name in (("model", job.model), ("variant", job.variant)):
        if not is_identifier(name):
            raise RecipeMismatch(f"the {what}'s name {name!r} must have {IDENTIFIER_RULE}")
    if recipe.family != job.description.family:
        raise RecipeMismatch(f"the recipe is for {recipe.family}, {job.model} is {job.description.family}")
    shared = {prompt.text for prompt in job.calibration} & {prompt.text for prompt in job.held_out}
    if shared:
        raise RecipeMismatch(f"{len(shared)} calibration prompts are also held out for the report: {min(shared)!r}")
    if len(job.calibration) < recipe.calibration.num_prompts:
        raise RecipeMismatch(
            f"the recipe calibrates on {recipe.calibration.num_prompts} prompts, there are {len(job.calibration)}"
        )
    try:
        return recipe.complete(find(quant.methods, recipe.method).STAGES)
    except RecipeError as error:
        raise RecipeMismatch(str(error)) from error


def _identity(job: Quantization, stages: Stages) -> str:
    """What finished pieces of work depend on, as a name."""
    return key_of(
        {
            "model": weights_digest(job.description.source),
            "recipe": job.recipe.model_dump(mode="json"),
            "stages": stages.model_dump(mode="json"),
            "prompts": [prompt.text for prompt in job.calibration[: job.recipe.calibration.num_prompts]],
            "code": code_digest(),
            "machine": machine("cpu"),
        }
    )[:24]


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


def _inputs(job: Quantization) -> Run:
    prompts = job.calibration[: job.recipe.calibration.num_prompts]
    return Run(tuple(prompt.text for prompt in prompts), _sampling(job))


@dataclass(frozen=True)
class _Cost:
    seconds: float
    peak_bytes: int


def _card(job: Quantization, folder: Path, cost: _Cost, on_progress: Progress) -> Card:
    reference = load_reference(job.description)
    served = load_unsigned(folder, job.description.dtype)
    sampling = replace(_sampling(job), seed=HELD_OUT_SEED)
    arms = {"variant": served, "noise_floor": _rounded(job, reference)}
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
            dtype=resolved_dtype(job.description.dtype),
        ),
        versions={name: importlib.metadata.version(name) for name in ("diffusers", "transformers")}
        | {"torch": str(torch.__version__)},
    )


def _rounded(job: Quantization, reference: DiffusionPipeline) -> DiffusionPipeline:
    """What differs from the reference by the rounding of floats alone: bfloat16 beside float32, and float32 beside a
    type of 16 bits."""
    return bfloat16_copy(reference) if job.description.dtype == "float32" else load_reference(job.exact)


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
