"""Calibration: a model, a recipe and prompts to a published variant with its card."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from contract.card import Card
from contract.errors import RegistryError, VariantExists
from contract.jobs import JobRecord
from contract.payloads import CalibrationPayload
from contract.results import CalibrationResult
from quant.quantization.job import QuantizationJob
from quant.quantization.quantize import quantize
from quant.sampling.progress import Progress
from quant.sampling.prompts import Prompt, load_prompts, prompts_from_texts
from worker.lease import JobLease
from worker.runtime import Runtime

INLINE = "inline"
"""What a card calls prompts that came with the request."""

JOURNALS = "calibrations"
"""Folder in the data folder where calibrations note finished work, for the case that they are killed."""


def run(runtime: Runtime, lease: JobLease, record: JobRecord) -> CalibrationResult:
    """Build the variant in a staging folder, and publish it."""
    payload = record.payload
    if not isinstance(payload, CalibrationPayload):
        raise TypeError(f"not a calibration: {type(payload).__name__}")
    lease.progress("prepare", 0, 1)
    card = _published_before(runtime, record, payload) or _build(runtime, lease, record, payload)
    return CalibrationResult(model=payload.model, variant=payload.variant, card=card)


def _build(runtime: Runtime, lease: JobLease, record: JobRecord, payload: CalibrationPayload) -> Card:
    quantization = _quantization(runtime, payload)
    staged = runtime.registry.stage(f"{record.id}-{record.attempt}")
    try:
        quantize(quantization, staged, TimeLeft(lease.progress), runtime.settings.data_dir / JOURNALS)
        lease.progress("publish", 1, 1)
        return runtime.registry.publish(staged).card
    finally:
        shutil.rmtree(staged, ignore_errors=True)


class TimeLeft:
    """Passes progress on with the time that the stage will still take, as far as its pace so far tells."""

    def __init__(self, tell: Progress) -> None:
        self._tell = tell
        self._stage, self._began = "", 0.0

    def __call__(self, stage: str, done: int, total: int, note: str = "", /) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._began, pace = stage, now, 0.0
        else:
            pace = (now - self._began) / max(done, 1)
        left = f"{pace * (total - done):.0f} s left" if pace and done < total else ""
        self._tell(stage, done, total, ", ".join(part for part in (note, left) if part))


def _published_before(runtime: Runtime, record: JobRecord, payload: CalibrationPayload) -> Card | None:
    """The card of an earlier attempt that was killed after publishing. A new name that is taken by anything else is
    refused here, before the work."""
    published = runtime.registry.get(payload.model, payload.variant)
    if published is None:
        return None
    if (
        record.attempt > 1
        and published.card.recipe == payload.recipe
        and published.card.created.timestamp() >= record.created
    ):
        return published.card
    raise VariantExists(f"{payload.model} already has a variant {payload.variant}, and a published one never changes")


def _quantization(runtime: Runtime, payload: CalibrationPayload) -> QuantizationJob:
    description = runtime.catalogue.models.get(payload.model)
    if description is None:
        raise RegistryError(f"this worker has no model {payload.model}")
    calibration, held_out, prompt_set = _prompts(runtime.settings.prompts, payload)
    return QuantizationJob(
        model=payload.model,
        description=description,
        recipe=payload.recipe,
        variant=payload.variant,
        calibration=calibration,
        held_out=held_out,
        prompt_set=prompt_set,
    )


def _prompts(folder: Path, payload: CalibrationPayload) -> tuple[list[Prompt], list[Prompt], str]:
    limit, held_out = payload.recipe.calibration.num_prompts, payload.held_out
    if isinstance(payload.prompts, str):
        calibration = load_prompts(folder, payload.prompts, "calibration", limit)
        return calibration, load_prompts(folder, payload.prompts, "validation", held_out), payload.prompts
    prompts = prompts_from_texts(list(payload.prompts))
    return prompts[:-held_out][:limit], prompts[-held_out:], INLINE
