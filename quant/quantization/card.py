"""The card of a checkpoint: what was asked for, what came out, and how near it is, measured as it will be served."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from torch import nn

from contract.card import Card, ConsistencyReport, SamplerSignature
from quant.checkpoints.checkpoint import denoiser_bytes, digest
from quant.checkpoints.layout import quantized_layers
from quant.checkpoints.pipelines import denoiser_of, load_reference, load_unsigned
from quant.discovery import family_of
from quant.engine.dtypes import resolved_dtype
from quant.fidelity.consistency import consistency
from quant.fidelity.floors import FLOOR, rounded
from quant.fidelity.metric_choice import CONSISTENCY
from quant.quantization.job import QuantizationJob
from quant.sampling.progress import Progress
from quant.sampling.request import Sampling

HELD_OUT_SEED = 1_000_000
"""Seed of the first picture of a report; calibration's own seeds are far below."""
VARIANT = "variant"


@dataclass(frozen=True)
class Cost:
    """What a calibration took: seconds, and the most bytes that the process had resident."""

    seconds: float
    peak_bytes: int


def card_of(folder: Path, job: QuantizationJob, cost: Cost, on_progress: Progress) -> Card:
    """Measures the checkpoint in `folder`, which has no card yet, against its reference on the held-out prompts."""
    reference = load_reference(job.description)
    served = load_unsigned(folder, job.description.dtype)
    sampling = replace(job.sampling, seed=HELD_OUT_SEED)
    pipelines = {VARIANT: served, FLOOR: rounded(job.description, lambda: reference)}
    measured = consistency(reference, pipelines, job.held_out, sampling, CONSISTENCY, on_progress)
    return Card(
        model=job.model,
        variant=job.variant,
        recipe=job.recipe,
        digest=digest(folder),
        created=datetime.now(UTC),
        signature=_signature(reference, sampling),
        calibration_prompt_ids=tuple(prompt.id for prompt in job.used),
        calibration_seconds=round(cost.seconds, 3),
        calibration_peak_bytes=cost.peak_bytes,
        quantized_layers=len(quantized_layers(denoiser_of(served))),
        float_layers=_float_layers(served),
        denoiser_bytes=denoiser_bytes(folder, family_of(served).denoiser),
        reference_denoiser_bytes=sum(4 * p.numel() for p in denoiser_of(reference).parameters()),
        report=ConsistencyReport(
            prompt_set=job.prompt_set,
            prompt_ids=tuple(prompt.id for prompt in job.held_out),
            seed=HELD_OUT_SEED,
            metrics=measured[VARIANT],
            noise_floor=measured[FLOOR],
            dtype=resolved_dtype(job.description.dtype),
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
        prediction_type=family_of(pipeline).prediction(pipeline),
        num_inference_steps=sampling.num_inference_steps,
        guidance_scale=sampling.guidance_scale,
        width=sampling.width,
        height=sampling.height,
    )
