"""From variants and prompt sets to a report: a study of every arm on whole prompt sets, with all that belongs around
it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from quant.engine.memory import PeakMemory
from quant.errors import QuantError
from quant.fidelity.arm import Arm, reference_arm, variant_arm
from quant.fidelity.backbone import Backbones
from quant.fidelity.document import Times
from quant.fidelity.evaluation.findings import Findings, document
from quant.fidelity.evaluation.job import EvaluationJob
from quant.fidelity.evaluation.overlap import calibrated_on
from quant.fidelity.evaluation.picture_files import PictureFiles
from quant.fidelity.evaluation.real_pictures import real_features
from quant.fidelity.evaluation.tensor_cache import TensorCache
from quant.fidelity.evaluation.variants import Variants, read_variants
from quant.fidelity.evaluation.worst_pairs import worst_pairs
from quant.fidelity.floors import floor_arms
from quant.fidelity.measurement import Measurement
from quant.fidelity.metric_choice import Reasons, choose
from quant.fidelity.report.report import Report
from quant.fidelity.report.worst_pair import WorstPair
from quant.fidelity.study import Study, batches
from quant.sampling.generation import OnStep
from quant.sampling.progress import Progress

MeasuredArms = dict[str, dict[str, Measurement]]
"""By arm and prompt set."""


def evaluate(job: EvaluationJob, cache: Path, on_progress: Progress) -> Report:
    """Measures all variants. `on_progress` gets (arm, pictures done, pictures in all) at every step; what it raises
    ends the run, which goes on from `cache` when it is started again, with the same figures to the last digit.

    A variant that cannot be loaded or drawn with is reported as such; when all fail, the first one's error is raised.
    Raises EvaluationError when prompts overlap with calibration's or sets have the same name, BackboneMissing for a
    metric that was asked for, and CheckpointError when no variant has a card."""
    clock = _Clock()
    job.check()
    variants = read_variants(job)
    study, not_measured = open_study(job, cache)
    real = real_features(job.real, study.metrics, study.backbones, study.sampling) if job.real else {}
    measured: MeasuredArms = {}
    floors = floor_arms(study.reference, job.description, job.device) if job.floors else ()
    for arm in (study.reference, *floors):
        measured[arm.name] = _measure(study, job, arm, on_progress)
        arm.close()
    worst = _measure_variants(study, job, variants, measured, on_progress)
    variants.refuse_if_all_failed(job)
    findings = Findings(
        job=job,
        measured=measured,
        not_measured=not_measured,
        report_cards=variants.report_cards,
        calibrated_on={name: calibrated_on(card, job.seen) for name, card in variants.cards.items()},
        failures={name: str(error) for name, error in variants.failures.items()},
        worst=worst,
        real=real,
    )
    return Report(document(study, findings, clock.times()), worst)


def open_study(job: EvaluationJob, cache: Path) -> tuple[Study, Reasons]:
    """The study of a job, whose measurements go through the files in `cache`, and why some metrics are not measured.
    Raises ModelError where the reference's weights are not at hand, and what `choose` raises."""
    backbones = Backbones(job.backbones)
    metrics, reasons = choose(job.metrics, backbones, job.description.height, job.description.width)
    reference = reference_arm(job.description, job.device)
    return Study(reference, job.sampling, metrics, backbones, TensorCache(cache)), reasons


def _measure_variants(
    study: Study, job: EvaluationJob, variants: Variants, measured: MeasuredArms, on_progress: Progress
) -> list[WorstPair]:
    """Adds the variants to what is measured, or to the failures; returns their worst pictures."""
    cut = {prompt_set.name: batches(prompt_set.prompts, job.seed) for prompt_set in job.prompt_sets}
    worst: list[WorstPair] = []
    for name, card in variants.cards.items():
        arm = variant_arm(name, job.variants[name], card, job.description.dtype, job.device)
        try:
            by_set = _measure(study, job, arm, on_progress)
            worst += worst_pairs(study, arm, cut, by_set)
            measured[name] = by_set
        except (QuantError, FileNotFoundError) as error:
            variants.failures[name] = error
        finally:
            arm.close()
    return worst


def _measure(study: Study, job: EvaluationJob, arm: Arm, on_progress: Progress) -> dict[str, Measurement]:
    """An arm on all prompt sets, its pictures written where the job asks for them."""
    total, before = sum(len(prompt_set.prompts) for prompt_set in job.prompt_sets), 0
    by_set: dict[str, Measurement] = {}
    for prompt_set in job.prompt_sets:
        cut = batches(prompt_set.prompts, job.seed)
        on_pictures: OnStep = partial(_tell, partial(on_progress, arm.name), before, total)
        if job.pictures is None:
            measured = study.measured([arm], cut, on_pictures)
        else:
            files = PictureFiles(study, job.pictures / arm.name / prompt_set.name)
            measured = study.measured([arm], cut, on_pictures, files.write_batch)
            files.write_manifest(arm, cut)
        by_set[prompt_set.name] = measured[arm.name]
        before += len(prompt_set.prompts)
    return by_set


def _tell(on_progress: Callable[[int, int], None], before: int, total: int, done: int, _: int) -> None:
    """What is done of one set, as part of all sets."""
    on_progress(before + done, total)


@dataclass(frozen=True)
class _Clock:
    """Runs from when it was made."""

    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    began: float = field(default_factory=time.monotonic)
    memory: PeakMemory = field(default_factory=PeakMemory)

    def times(self) -> Times:
        return Times(
            started=self.started.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - self.began, 1),
            peak_resident_bytes=self.memory.resident_bytes,
        )
