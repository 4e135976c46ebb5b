"""An evaluation as a job: what quant finds becomes a result, a report and links. quant itself is pretended here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import worker.jobs.evaluation as job
from contract.broker import Line
from contract.card import Card, Statistic
from contract.catalogue import ModelDescription
from contract.jobs import JobRecord, JobState
from contract.kinds import JobKind
from contract.payloads import EvaluationPayload
from contract.reports import FILES
from contract.results import EvaluationResult
from contract.transitions import Submission, cancel, claim, find, list_jobs, submit
from quant.fidelity.evaluation.job import EvaluationJob
from quant.fidelity.report.report import Report
from quant.sampling.progress import Progress
from tests.support.cards import card, stage
from tests.support.documents import small_document
from worker.claims import ClaimLoop
from worker.compute import ComputeThread
from worker.execution import execute
from worker.runtime import Runtime

EVALUATE = Line.EVALUATE.value
PAYLOAD = EvaluationPayload(
    model="tiny", variants=("one", "two"), prompt_sets=("plain", "ornate"), limit=2, metrics=("psnr",), seed=5
)
DIGESTS = {"one": "1" * 64, "two": "2" * 64}
Evaluate = Callable[[EvaluationJob, Path, Progress], Report]


def _found(evaluation: EvaluationJob, cache: Path, on_progress: Progress) -> Report:
    on_progress("one", 1, 4)
    return Report(small_document(DIGESTS, evaluation.seed), [])


def _card_of(variant: str) -> Card:
    return card(variant=variant).model_copy(update={"digest": DIGESTS[variant]})


def _written(report: Report, folder: Path) -> None:
    for name in FILES:
        (folder / name).write_text(report.document.model_dump_json())
    (folder / "worst.webp").write_bytes(b"picture")


@pytest.fixture
def world(runtime: Runtime, tmp_path: Path) -> Runtime:
    """The worker with a model, two variants of it, and two prompt sets; it serves evaluations."""
    for name in ("plain", "ornate"):
        (tmp_path / "prompts" / name).mkdir(parents=True)
        rows = [json.dumps({"id": f"{name}-{i}", "prompt": f"{name} {i}"}) for i in range(3)]
        (tmp_path / "prompts" / name / "test.jsonl").write_text("\n".join(rows))
    for variant in DIGESTS:
        staged = stage(runtime.registry.stage(variant), variant=variant)
        (staged / "card.json").write_text(_card_of(variant).model_dump_json())
        runtime.registry.publish(staged)
    models = {"tiny": ModelDescription(family="stable_diffusion", source="tiny")}
    return replace(
        runtime,
        queues=(EVALUATE,),
        settings=runtime.settings.model_copy(update={"prompts": tmp_path / "prompts"}),
        catalogue=runtime.catalogue.model_copy(update={"models": models}),
    )


@pytest.fixture
def run(world: Runtime, monkeypatch: pytest.MonkeyPatch) -> Callable[..., JobRecord]:
    """Submits an evaluation, has the worker do it with a pretended quant, and answers the record."""

    def run(evaluate: Evaluate = _found, payload: EvaluationPayload = PAYLOAD) -> JobRecord:
        monkeypatch.setattr(job, "evaluate", evaluate)
        monkeypatch.setattr(job, "write_report", _written)
        submission = Submission(kind=JobKind.EVALUATION, queue=EVALUATE, payload=payload)
        name = world.store.run(submit(submission, open_jobs=9)).id
        ClaimLoop(world, execute, ComputeThread()).drain()
        return world.store.run(find(name))

    return run


def test_what_quant_finds_becomes_the_result(run: Callable[..., JobRecord], world: Runtime) -> None:
    asked: list[EvaluationJob] = []

    def evaluate(evaluation: EvaluationJob, cache: Path, on_progress: Progress) -> Report:
        asked.append(evaluation)
        assert cache == world.settings.data_dir / "evaluation-cache"
        assert cache.is_dir()
        return _found(evaluation, cache, on_progress)

    record = run(evaluate)
    result = record.result
    assert record.state is JobState.SUCCEEDED, record.error
    assert isinstance(result, EvaluationResult)
    assert [sorted(sets) for sets in result.variants.values()] == [["ornate", "plain"]]
    assert result.variants["one"]["plain"].keys() == {"psnr", "frechet", "first_diverging_step"}
    assert result.variants["one"]["plain"]["psnr"].ci95 == (32.0, 34.0)
    assert type(result.variants["one"]["plain"]["psnr"]) is Statistic
    assert result.floors.keys() == {"bfloat16", "finite_sample"}
    assert result.floors["bfloat16"]["frechet"].reason == "the distance is not finite"
    assert result.failures == {"two": "its files are damaged"}
    (evaluation,) = asked
    assert [each.name for each in evaluation.prompt_sets] == ["plain", "ornate"]
    assert [len(each.prompts) for each in evaluation.prompt_sets] == [2, 2]
    assert (evaluation.metrics, evaluation.seed, evaluation.device) == (("psnr",), 5, "cpu")


def test_the_report_is_published_and_linked_to_what_it_measured(run: Callable[..., JobRecord], world: Runtime) -> None:
    result = run().result
    assert isinstance(result, EvaluationResult)
    report = result.report["json"].rpartition("/")[2].removesuffix(".json")
    path = world.reports.find(report, "report.json")
    assert path is not None
    assert json.loads(path.read_text())["protocol"]["seed"] == 5
    assert world.reports.of_variant(DIGESTS["one"]) == report
    assert world.reports.of_variant(DIGESTS["two"]) is None
    assert not list((world.settings.data_dir / "reports" / "staging").iterdir())


def test_a_cancellation_ends_it_and_leaves_no_report(run: Callable[..., JobRecord], world: Runtime) -> None:
    def evaluate(evaluation: EvaluationJob, cache: Path, on_progress: Progress) -> Report:
        world.store.run(cancel(_running(world)))
        return _found(evaluation, cache, on_progress)

    assert run(evaluate).state is JobState.CANCELED
    assert not world.reports.folder.exists()


def test_a_worker_that_stops_puts_it_back(run: Callable[..., JobRecord], world: Runtime) -> None:
    def evaluate(evaluation: EvaluationJob, cache: Path, on_progress: Progress) -> Report:
        world.patience.draining.set()
        return _found(evaluation, cache, on_progress)

    assert run(evaluate).state is JobState.QUEUED
    again = world.store.run(claim([EVALUATE], "other"))
    assert again is not None
    assert again.payload == PAYLOAD


def test_one_variant_that_is_gone_is_left_to_quant(run: Callable[..., JobRecord], world: Runtime) -> None:
    asked: list[EvaluationJob] = []

    def evaluate(evaluation: EvaluationJob, cache: Path, on_progress: Progress) -> Report:
        asked.append(evaluation)
        return _found(evaluation, cache, on_progress)

    gone = PAYLOAD.model_copy(update={"variants": ("one", "gone")})
    assert run(evaluate, gone).state is JobState.SUCCEEDED
    assert asked[0].variants["gone"] == world.settings.data_dir / "variants" / "tiny" / "gone"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"variants": ("gone", "lost")}, "variant-unusable"),
        ({"model": "other"}, "variant-unusable"),
        ({"prompt_sets": ("none",)}, "invalid-prompt-set"),
    ],
)
def test_what_is_gone_is_named(run: Callable[..., JobRecord], change: dict[str, Any], code: str) -> None:
    record = run(payload=PAYLOAD.model_copy(update=change))
    assert record.error is not None
    assert record.error.code == code


def _running(runtime: Runtime) -> str:
    page = runtime.store.run(list_jobs(JobKind.EVALUATION, "", JobState.RUNNING, before=0, limit=1))
    return page.records[0].id
