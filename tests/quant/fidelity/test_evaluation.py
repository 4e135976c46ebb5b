"""The protocol of an evaluation: pairing, floors, resumption, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import quant.fidelity.study as study_module
from quant.checkpoints.layout import quantized_layers
from quant.checkpoints.pipelines import load_reference, load_variant
from quant.errors import BackboneMissing, CheckpointError, EvaluationError, PictureMismatch, QuantError
from quant.fidelity.backbone import Backbones
from quant.fidelity.consistency import consistency
from quant.fidelity.document import Document, Failure, Figures
from quant.fidelity.evaluation.evaluation import evaluate
from quant.fidelity.evaluation.job import EvaluationJob
from quant.fidelity.metric_choice import choose
from quant.fidelity.networks.judge import Judge
from quant.sampling.generation import Drawn
from quant.sampling.progress import Progress, silent
from quant.sampling.prompts import Prompt, PromptSet, SeenPrompt, prompts_from_texts
from quant.sampling.request import Sampling
from tests.support.tiny_world import TinyWorld

LETTERS = "abcdefghijklmnopqrstuvwx"
SIDE = 32
"""Pixels: a quarter of what the tiny model draws by itself, to be quick."""
COUNTS = {"home": 20, "away": 10}
"""Prompts of each set: as many as a distance of sets needs for an interval, and fewer."""


@dataclass(frozen=True)
class Finished:
    """The document of a whole evaluation, and the cache that it left, from which others go on."""

    document: Document
    cache: Path

    def figures(self, variant: str, prompt_set: str) -> Figures:
        return self.document.measured[variant].prompt_sets[prompt_set]


def _set(name: str, word: str) -> PromptSet:
    texts = [f"{word} {letter}" for letter in LETTERS[: COUNTS[name]]]
    return PromptSet(name, tuple(replace(p, attributes={"floor": "light"}) for p in prompts_from_texts(texts)))


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge, untrained, for pictures of `SIDE`."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("backbones")
    Judge(heads=[("floor", ["light", "dark"])], image_size=SIDE).save_pretrained(folder / "judge")
    return folder


@pytest.fixture(scope="module")
def job(tiny: TinyWorld, backbones: Path) -> EvaluationJob:
    return EvaluationJob(
        model="tiny",
        description=tiny.description.model_copy(update={"width": SIDE, "height": SIDE}),
        variants={f"w{bits}": tiny.folder(bits) for bits in (8, 4)},
        prompt_sets=(_set("home", "prompt"), _set("away", "picture")),
        seen={prompt: SeenPrompt("home", prompt) for prompt in tiny.cards[8].calibration_prompt_ids},
        backbones=backbones,
    )


@pytest.fixture(scope="module")
def small(job: EvaluationJob) -> EvaluationJob:
    """One variant on the small set, without floors: two batches of two arms."""
    return replace(job, variants={"w8": job.variants["w8"]}, prompt_sets=job.prompt_sets[1:], floors=False)


@pytest.fixture(scope="module")
def finished(job: EvaluationJob, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """All variants on both sets, with floors."""
    cache = tmp_path_factory.mktemp("cache")
    return Finished(evaluate(job, cache, silent).document, cache)


def _timeless(document: Document) -> str:
    return document.model_dump_json(exclude={"times"})


def _mean(figures: Figures, metric: str) -> float:
    mean = figures[metric].mean
    assert mean is not None
    return mean


def _shortened(prompt_set: PromptSet, count: int) -> tuple[PromptSet, ...]:
    return (replace(prompt_set, prompts=prompt_set.prompts[:count]),)


def test_the_document_has_every_figure_with_its_interval(finished: Finished) -> None:
    for variant in ("w8", "w4"):
        for prompt_set, count in COUNTS.items():
            figures = finished.figures(variant, prompt_set)
            for metric in ("psnr", "ssim", "latent_mse", "trajectory", "image_cosine", "prompt_accuracy"):
                low, high = figures[metric].ci95 or (1.0, 0.0)
                assert low <= _mean(figures, metric) <= high and figures[metric].count == count
        assert finished.figures(variant, "home")["frechet"].ci95 is not None
        assert "no interval" in str(finished.figures(variant, "away")["frechet"].reason)
    assert set(finished.document.protocol.not_measured) == {"clip_score", "lpips"}
    assert finished.document.times.peak_resident_bytes > 0


def test_the_floors_are_in_order(finished: Finished) -> None:
    floors, w8 = finished.document.floors, finished.figures("w8", "home")
    bfloat16, other_seeds, finite = (floors[each].primary for each in ("bfloat16", "other_seeds", "finite_sample"))
    for metric in ("psnr", "ssim"):
        assert _mean(bfloat16, metric) > _mean(w8, metric) > _mean(other_seeds, metric)
    assert _mean(bfloat16, "frechet") < _mean(w8, "frechet") < _mean(finite, "frechet")
    assert floors["bfloat16"].prompt_sets["home"]["psnr"] == bfloat16["psnr"]


def test_the_means_are_those_of_pipelines_in_memory(finished: Finished, job: EvaluationJob) -> None:
    d = job.description
    sampling = Sampling("", "", job.seed, d.num_inference_steps, d.guidance_scale, d.width, d.height)
    pipelines = {"w4": load_variant(job.variants["w4"])}
    prompts = job.prompt_sets[1].prompts
    plain = consistency(load_reference(d), pipelines, prompts, sampling, ("psnr", "ssim"), silent)["w4"]
    for metric, statistic in plain.items():
        assert finished.figures("w4", "away")[metric].model_dump(include={"mean", "ci95", "count"}) == (
            statistic.model_dump(include={"mean", "ci95", "count"})
        )


def test_fewer_bits_are_worse_and_the_test_says_so(finished: Finished) -> None:
    tests = {(t.prompt_set, t.metric): t for t in finished.document.comparisons if "reference" not in (t.a, t.b)}
    for metric in ("ssim", "psnr", "latent_mse", "trajectory"):
        test = tests["home", metric]
        assert (test.a, test.b) == ("w8", "w4") and test.p is not None and test.p < 0.01
        assert test.sentence == f"w8 is better than w4 on {metric}, p = {test.p:.2g}"


def test_the_generalization_gap_is_the_difference_of_the_sets(finished: Finished) -> None:
    variant = finished.document.measured["w4"]
    assert variant.generalization.calibrated_on == "home"
    gap, home, away = (
        variant.generalization.gaps["away"],
        finished.figures("w4", "home"),
        finished.figures("w4", "away"),
    )
    for metric, sign in (("psnr", 1.0), ("latent_mse", -1.0), ("frechet", -1.0)):
        expected = sign * (_mean(home, metric) - _mean(away, metric))
        assert gap[metric].mean == pytest.approx(expected)


def test_a_second_run_draws_nothing_and_says_the_same(
    finished: Finished, job: EvaluationJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_module, "draw", _never)
    assert _timeless(evaluate(job, finished.cache, silent).document) == _timeless(finished.document)


def _never(*_: object) -> Drawn:
    raise AssertionError("everything was drawn before")


def test_a_run_that_is_killed_goes_on_with_the_same_figures(
    finished: Finished, small: EvaluationJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    def kill_after(calls: int) -> Progress:
        made = [0]

        def count(*_: object) -> None:
            made[0] += 1
            if made[0] == calls:
                raise Killed

        return count

    for calls in (2, 5, 8):  # in the reference's first batch, in its second, and in the variant's first
        with pytest.raises(Killed):
            evaluate(small, tmp_path, kill_after(calls))
    damaged = sorted(tmp_path.rglob("*.safetensors"))[0]
    damaged.write_bytes(damaged.read_bytes()[:100])  # as a full disk leaves it
    resumed = _timeless(evaluate(small, tmp_path, silent).document)
    assert not list(tmp_path.rglob(".part-*"))
    monkeypatch.setattr(study_module, "draw", _never)  # the run that was not killed has drawn all of it
    assert resumed == _timeless(evaluate(small, finished.cache, silent).document)


def test_the_reference_is_shared_by_all_variants_and_by_shorter_runs(
    finished: Finished, job: EvaluationJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = study_module.draw

    def no_reference(pipeline: Any, *rest: Any) -> Drawn:
        assert quantized_layers(pipeline.unet), "only the worst pictures of the shorter set are drawn again"
        return real(pipeline, *rest)

    monkeypatch.setattr(study_module, "draw", no_reference)
    monkeypatch.setattr(study_module, "measure", _never)
    # The first eight are the same batch, and the variant's name does not matter.
    shorter = _shortened(job.prompt_sets[0], 8)
    evaluate(replace(job, prompt_sets=shorter, variants={"again": job.variants["w8"]}), finished.cache, silent)


def test_another_seed_gives_other_pictures(finished: Finished, small: EvaluationJob) -> None:
    asked = replace(small, prompt_sets=_shortened(small.prompt_sets[0], 2), seed=1, metrics=("psnr",))
    other = evaluate(asked, finished.cache, silent).document
    assert other.measured["w8"].prompt_sets["away"]["psnr"].mean != finished.figures("w8", "away")["psnr"].mean


def test_one_prompt_has_means_and_no_intervals(job: EvaluationJob, tmp_path: Path) -> None:
    document = evaluate(replace(job, prompt_sets=_shortened(job.prompt_sets[0], 1)), tmp_path, silent).document
    figures = document.measured["w8"].prompt_sets["home"]
    assert figures["psnr"].mean is not None and figures["psnr"].ci95 is None
    assert figures["frechet"].mean is None and "two pictures" in str(figures["frechet"].reason)
    assert all(test.p is None for test in document.comparisons)
    json.dumps(document.model_dump(mode="json"), allow_nan=False)


def test_pictures_that_are_not_finite_are_counted_and_not_averaged_in(
    finished: Finished, small: EvaluationJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = study_module.draw

    def spoiled(pipeline: Any, texts: list[str], *rest: Any) -> Drawn:
        drawn = real(pipeline, texts, *rest)
        if quantized_layers(pipeline.unet):
            drawn.values[1] = torch.nan
            drawn.trajectory[1, -1] = torch.inf
            drawn.values[3:4] = 0.25
        return drawn

    monkeypatch.setattr(study_module, "draw", spoiled)
    document = evaluate(small, tmp_path, silent).document
    ids = [prompt.id for prompt in small.prompt_sets[0].prompts]
    variant = document.measured["w8"]
    figures = variant.prompt_sets["away"]
    assert variant.invalid_pictures["away"] == tuple(ids[i] for i in (1, 3, 9))
    assert figures["psnr"].count == 7 and "3 of 10" in str(figures["psnr"].reason)
    assert figures["frechet"].count == 7
    assert _mean(figures, "psnr") == pytest.approx(_mean(finished.figures("w8", "away"), "psnr"), abs=1.0)
    json.dumps(document.model_dump(mode="json"), allow_nan=False)


def test_a_variant_that_disappears_is_reported_and_the_others_are_measured(
    small: EvaluationJob, tiny: TinyWorld, tmp_path: Path
) -> None:
    doomed = tmp_path / "doomed"
    shutil.copytree(tiny.folder(4), doomed)

    def delete(arm: str, *_: object) -> None:
        if arm == "w8":
            shutil.rmtree(doomed, ignore_errors=True)

    variants = {"w8": tiny.folder(8), "doomed": doomed, "never": tmp_path / "never"}
    asked = replace(small, variants=variants, prompt_sets=_shortened(small.prompt_sets[0], 2), metrics=("psnr",))
    document = evaluate(asked, tmp_path / "cache", delete).document
    assert document.measured.keys() == {"w8"} and "psnr" in document.measured["w8"].prompt_sets["away"]
    lost, never = document.variants["doomed"], document.variants["never"]
    assert isinstance(lost, Failure) and lost.card is not None and lost.error
    assert isinstance(never, Failure) and never.card is None and never.error
    assert not any("doomed" in (test.a, test.b) for test in document.comparisons)
    with pytest.raises(CheckpointError):
        evaluate(replace(asked, variants={"doomed": doomed}), tmp_path / "cache", silent)


def test_prompts_that_calibration_has_seen_are_refused(job: EvaluationJob, tiny: TinyWorld, tmp_path: Path) -> None:
    card = tiny.cards[8]
    for used in (card.calibration_prompt_ids[0], card.report.prompt_ids[0]):
        with pytest.raises(EvaluationError, match="never met"):
            evaluate(replace(job, prompt_sets=(PromptSet("own", (Prompt(used, "x"),)),)), tmp_path, silent)
    seen = {card.calibration_prompt_ids[0]: SeenPrompt("home", "a red box")}
    renamed = PromptSet("own", (Prompt("new-id", "a red box"),))
    with pytest.raises(EvaluationError, match="new-id"):
        evaluate(replace(job, prompt_sets=(renamed,), seen=seen), tmp_path, silent)


def test_sets_of_one_name_and_no_variants_are_refused(job: EvaluationJob, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="different names"):
        evaluate(replace(job, prompt_sets=(job.prompt_sets[0],) * 2), tmp_path, silent)
    with pytest.raises(EvaluationError, match="at least one variant"):
        evaluate(replace(job, variants={}), tmp_path, silent)


def test_a_metric_that_is_asked_for_is_measured_or_refused(backbones: Path) -> None:
    offered = Backbones(backbones)
    possible, reasons = choose((), offered, SIDE, SIDE)
    assert {"psnr", "frechet"} <= {metric.key for metric in possible} and "lpips" in reasons
    assert [metric.key for metric in choose(("ssim", "kid:judge"), offered, SIDE, SIDE)[0]] == ["ssim", "kid"]
    for asked, error in (
        (("lpips",), BackboneMissing),
        (("frechet:inception",), BackboneMissing),
        (("beauty",), EvaluationError),
        (("psnr:judge",), EvaluationError),
        (("ssim", "ssim"), EvaluationError),
    ):
        with pytest.raises(error):
            choose(asked, offered, SIDE, SIDE)
    with pytest.raises(PictureMismatch):
        choose(("frechet",), offered, 128, 128)


def test_pictures_are_written_once_under_their_place_in_the_set(
    finished: Finished, small: EvaluationJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = replace(small, pictures=tmp_path, floors=True)
    evaluate(asked, finished.cache, silent)
    for arm in ("reference", "bfloat16", "other_seeds", "w8"):
        folder = tmp_path / arm / "away"
        rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [row["file"] for row in rows] == [f"{i:05}.png" for i in range(10)]
        assert [row["prompt"] for row in rows] == [prompt.text for prompt in asked.prompt_sets[0].prompts]
        assert all(Image.open(folder / row["file"]).size == (SIDE, SIDE) for row in rows)
    first, second = (_pixels(tmp_path / arm / "away/00003.png") for arm in ("reference", "w8"))
    decibels = 10 * np.log10(255**2 / ((first - second) ** 2).mean())
    assert decibels == pytest.approx(_mean(finished.figures("w8", "away"), "psnr"), abs=6.0)
    (tmp_path / "w8/away/00003.png").unlink()
    drawn_again: list[int] = []
    real = study_module.draw
    monkeypatch.setattr(study_module, "draw", lambda *given: drawn_again.append(len(given[1])) or real(*given))
    evaluate(asked, finished.cache, silent)
    assert drawn_again == [8], "only the batch of the picture that is not there"
    assert (_pixels(tmp_path / "w8/away/00003.png") == second).all()


def _pixels(path: Path) -> Any:
    return np.asarray(Image.open(path), dtype=float)


def test_distances_to_real_pictures(finished: Finished, small: EvaluationJob, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(25):
        Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    asked = replace(small, real=tmp_path)
    document = evaluate(asked, finished.cache, silent).document
    figures = document.measured["w8"].prompt_sets["away"]
    assert _mean(figures, "frechet_to_real") > _mean(figures, "frechet")
    assert _mean(document.reference.prompt_sets["away"], "frechet_to_real") > 0.0
    Image.new("RGB", (16, 32)).save(tmp_path / "odd.png")
    with pytest.raises(PictureMismatch, match="16 x 32"):
        evaluate(asked, finished.cache, silent)
    (tmp_path / "odd.png").write_bytes(b"no picture")
    with pytest.raises(EvaluationError, match=r"odd\.png"):
        evaluate(asked, finished.cache, silent)
    with pytest.raises(QuantError, match="0 pictures"):
        evaluate(replace(asked, real=tmp_path / "nowhere"), finished.cache, silent)
