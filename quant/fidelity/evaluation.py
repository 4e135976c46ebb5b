"""From variants and prompt sets to a report: every arm draws every prompt from the same noise and is measured against
the reference."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from contract.card import Card
from contract.catalogue import ModelDescription
from quant.checkpoints.card_file import read_card
from quant.engine.memory import PeakMemory
from quant.errors import CheckpointError, EvaluationError, QuantError
from quant.fidelity.arm import Arm, reference_arms, variant_arm
from quant.fidelity.backbone import BACKBONE_FOLDER, Backbones
from quant.fidelity.document import Findings, Json, document
from quant.fidelity.measurement import Measurement
from quant.fidelity.metric_choice import Reasons, choose
from quant.fidelity.overlap import calibrated_on, refuse_overlap
from quant.fidelity.picture_files import export_batch, write_manifest
from quant.fidelity.real_pictures import real_features
from quant.fidelity.report.report import Report
from quant.fidelity.report.report_card import report_card
from quant.fidelity.report.worst import WorstPair, worst_pairs
from quant.fidelity.run import Batch, Run, batches
from quant.fidelity.tensor_cache import TensorCache
from quant.sampling.prompts import PromptSet, SeenPrompt
from quant.sampling.request import Sampling
from quant.sampling.seeds import EVALUATION_SEED

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class EvaluationJob:
    """What to measure: variants by name with their checkpoints, on `prompt_sets`, the first being the primary one.

    `metrics` empty means all that can be measured; `seen` are the prompts that calibrations may have used, by id;
    `real` is a folder of real pictures that distances between distributions are also taken to; into `pictures` all
    pictures that are drawn are written. Without `floors` those are not drawn, as where they are known."""

    model: str
    description: ModelDescription
    variants: dict[str, Path]
    prompt_sets: tuple[PromptSet, ...]
    metrics: tuple[str, ...] = ()
    seed: int = EVALUATION_SEED
    seen: Mapping[str, SeenPrompt] = field(default_factory=dict)
    real: Path | None = None
    pictures: Path | None = None
    backbones: Path = BACKBONE_FOLDER
    device: str = "cpu"
    floors: bool = True

    @property
    def sampling(self) -> Sampling:
        """How all pictures are drawn: as the model's description says."""
        return Sampling(
            "",
            num_inference_steps=self.description.num_inference_steps,
            guidance_scale=self.description.guidance_scale,
            width=self.description.width,
            height=self.description.height,
        )


def evaluate(job: EvaluationJob, cache: Path, on_progress: Progress) -> Report:
    """Measures all variants. `on_progress` gets (arm, pictures done, pictures in all) at every step; what it raises
    ends the run, which goes on from `cache` when it is started again, with the same figures to the last digit.

    A variant that cannot be loaded or drawn with is reported as such; when all fail, the first one's error is raised.
    Raises EvaluationError when prompts overlap with calibration's or sets have the same name, BackboneMissing for a
    metric that was asked for, and CheckpointError when no variant has a card."""
    started, clock, memory = datetime.now(UTC), time.monotonic(), PeakMemory()
    _check(job)
    cards, report_cards, failures = _cards(job)
    run, reasons, floors = _prepare(job, cache)
    real = real_features(job.real, run.metrics, run.backbones, run.sampling) if job.real else {}
    measured: dict[str, dict[str, Measurement]] = {}
    for arm in (run.reference, *(floors if job.floors else ())):
        measured[arm.name] = _measure(run, job, arm, on_progress)
        arm.close()
    worst: list[WorstPair] = []
    for name, card in cards.items():
        arm = variant_arm(name, job.variants[name], card, job.description.dtype, job.device)
        try:
            by_set = _measure(run, job, arm, on_progress)
            worst += worst_pairs(run, arm, _batches(job), by_set)
            measured[name] = by_set
        except (QuantError, FileNotFoundError) as error:
            failures[name] = error
        finally:
            arm.close()
    _refuse_if_all_failed(job, failures)
    findings = Findings(
        model=job.model,
        names=tuple(job.variants),
        prompt_sets=job.prompt_sets,
        seed=job.seed,
        measured=measured,
        metrics=run.metrics,
        not_measured=reasons,
        cards=report_cards,
        calibrated_on={name: calibrated_on(card, job.seen) for name, card in cards.items()},
        failures={name: str(error) for name, error in failures.items()},
        worst=worst,
        real=real,
    )
    written = document(run, findings)
    written["times"] = {
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - clock, 1),
        "peak_resident_bytes": memory.resident_bytes,
    }
    return Report(written, worst)


def _check(job: EvaluationJob) -> None:
    sets = [prompt_set.name for prompt_set in job.prompt_sets]
    if not job.variants or not sets:
        raise EvaluationError("an evaluation needs at least one variant and one prompt set")
    if len(set(sets)) < len(sets):
        raise EvaluationError(f"prompt sets must have different names: {', '.join(sets)}")


def _cards(job: EvaluationJob) -> tuple[dict[str, Card], dict[str, Json], dict[str, Exception]]:
    """The cards and report cards of the variants that are there, and why others are not."""
    cards: dict[str, Card] = {}
    report_cards: dict[str, Json] = {}
    failures: dict[str, Exception] = {}
    for name, folder in job.variants.items():
        try:
            cards[name], report_cards[name] = (card := read_card(folder)), report_card(card, folder)
        except CheckpointError as error:
            failures[name] = error
    _refuse_if_all_failed(job, failures)
    for name, card in cards.items():
        refuse_overlap(name, card, job.prompt_sets, job.seen)
    return cards, report_cards, failures


def _refuse_if_all_failed(job: EvaluationJob, failures: dict[str, Exception]) -> None:
    if len(failures) == len(job.variants):
        raise next(iter(failures.values()))


def _prepare(job: EvaluationJob, cache: Path) -> tuple[Run, Reasons, tuple[Arm, Arm]]:
    described = job.description
    backbones = Backbones(job.backbones)
    metrics, reasons = choose(job.metrics, backbones, described.height, described.width)
    reference, bfloat16, other_seeds = reference_arms(described, job.device)
    return Run(reference, job.sampling, metrics, backbones, TensorCache(cache)), reasons, (bfloat16, other_seeds)


def _batches(job: EvaluationJob) -> dict[str, list[Batch]]:
    return {prompt_set.name: batches(prompt_set, job.seed) for prompt_set in job.prompt_sets}


def _beat(on_progress: Progress, stage: str, done: int, total: int, *_: int) -> None:
    """After a step of a batch: nothing more is done, but who waits can tell life from a stall, or stop it."""
    on_progress(stage, done, total)


def _measure(run: Run, job: EvaluationJob, arm: Arm, on_progress: Progress) -> dict[str, Measurement]:
    total, done = sum(len(prompt_set.prompts) for prompt_set in job.prompt_sets), 0
    found: dict[str, Measurement] = {}
    for prompt_set in job.prompt_sets:
        parts = []
        for place, batch in enumerate(batches(prompt_set, job.seed)):
            parts.append(run.measurement(arm, batch, partial(_beat, on_progress, arm.name, done, total)))
            if job.pictures is not None:
                export_batch(run, arm, prompt_set, job.seed, place, job.pictures)
            done += len(batch.prompts)
            on_progress(arm.name, done, total)
        if job.pictures is not None:
            write_manifest(arm, prompt_set, job.seed, job.pictures)
        found[prompt_set.name] = Measurement.joined(parts)
    return found
