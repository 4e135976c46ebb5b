"""Evaluation: variants against the reference over whole prompt sets, to a published report."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

from contract.card import Statistic
from contract.errors import RegistryError
from contract.jobs import JobRecord
from contract.payloads import EvaluationPayload
from contract.reports import EXTENSIONS, report_url
from contract.results import EvaluationResult
from quant.fidelity.document import Document
from quant.fidelity.evaluation.evaluation import evaluate
from quant.fidelity.evaluation.job import EvaluationJob
from quant.fidelity.report.report import Report, write_report
from quant.fidelity.statistics import plain
from quant.sampling.prompts import load_prompt_set, seen_prompts
from worker.lease import JobLease
from worker.runtime import Runtime


def run(runtime: Runtime, lease: JobLease, record: JobRecord) -> EvaluationResult:
    """Measure the variants, publish the report, and link it to every variant that it measured. What an attempt has
    measured is kept in the cache, where the next one finds it."""
    payload = record.payload
    if not isinstance(payload, EvaluationPayload):
        raise TypeError(f"not an evaluation: {type(payload).__name__}")
    lease.progress("prepare", 0, 1)
    cache = runtime.settings.data_dir / "evaluation-cache"
    cache.mkdir(parents=True, exist_ok=True)
    made = evaluate(_evaluation(runtime, payload), cache, lease.progress)
    lease.progress("publish", 1, 1)
    return _result(payload, made.document, _publish(runtime, record, made))


def _evaluation(runtime: Runtime, payload: EvaluationPayload) -> EvaluationJob:
    description = runtime.catalogue.models.get(payload.model)
    if description is None:
        raise RegistryError(f"this worker has no model {payload.model}")
    folders = {name: runtime.registry.folder(payload.model, name) for name in payload.variants}
    if not any(folder.is_dir() for folder in folders.values()):
        raise RegistryError(f"none of these variants of {payload.model} is published any more")
    prompts = runtime.settings.prompts
    return EvaluationJob(
        model=payload.model,
        description=description,
        variants=folders,
        prompt_sets=tuple(load_prompt_set(prompts, name, payload.limit) for name in payload.prompt_sets),
        metrics=payload.metrics,
        seed=payload.seed,
        seen=seen_prompts(prompts),
        device=runtime.device,
    )


def _publish(runtime: Runtime, record: JobRecord, made: Report) -> str:
    staged = runtime.reports.stage(f"{record.id}-{record.attempt}")
    try:
        write_report(made, staged)
        report = runtime.reports.publish(staged)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    for variant in made.document.measured.values():
        runtime.reports.link(variant.card.digest, report)
    return report


def _result(payload: EvaluationPayload, document: Document, report: str) -> EvaluationResult:
    return EvaluationResult(
        model=payload.model,
        report={form: report_url(report, form) for form in EXTENSIONS},
        variants={
            name: {each: _plain(by_metric) for each, by_metric in variant.prompt_sets.items()}
            for name, variant in document.measured.items()
        },
        floors={name: _plain(floor.primary) for name, floor in document.floors.items()},
        failures=document.failures,
    )


def _plain(figures: Mapping[str, Statistic]) -> dict[str, Statistic]:
    """What a document knows of a metric beyond a Statistic stays in the report."""
    return {name: plain(statistic) for name, statistic in figures.items()}
