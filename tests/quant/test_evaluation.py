"""The protocol of an evaluation: pairing, floors, resumption, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import quant.fidelity.run as run_module
from quant.checkpoints.layout import quantized_layers
from quant.checkpoints.pipelines import load_reference, load_variant
from quant.errors import BackboneMissing, CheckpointError, EvaluationError, PictureMismatch, QuantError
from quant.fidelity.backbone import Backbones
from quant.fidelity.comparison import evaluate as evaluate_in_memory
from quant.fidelity.evaluation import EvaluationJob, evaluate
from quant.fidelity.metric_choice import choose
from quant.fidelity.networks.judge import Judge
from quant.sampling.generation import Drawn
from quant.sampling.prompts import Prompt, PromptSet, SeenPrompt, prompts_from_texts
from quant.sampling.request import Sampling
from tests.quant.conftest import TinyWorld

LETTERS = "abcdefghijklmnopqrstuvwx"
Json = dict[str, Any]


def _silent(*_: object) -> None:
    pass


def _set(name: str, word: str, count: int) -> PromptSet:
    texts = [f"{word} {letter}" for letter in LETTERS[:count]]
    return PromptSet(name, tuple(replace(p, attributes={"floor": "light"}) for p in prompts_from_texts(texts)))


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge, untrained, for the size of the tiny model's pictures."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("backbones")
    Judge(heads=[("floor", ["light", "dark"])], image_size=64).save_pretrained(folder / "judge")
    return folder


@pytest.fixture(scope="module")
def job(tiny: TinyWorld, backbones: Path) -> EvaluationJob:
    return EvaluationJob(
        model="tiny",
        description=tiny.description,
        variants={f"w{bits}": tiny.folder(bits) for bits in (8, 4)},
        prompt_sets=(_set("home", "prompt", 22), _set("away", "picture", 10)),
        seen={prompt: SeenPrompt("home", prompt) for prompt in tiny.cards[8].calibration_prompt_ids},
        backbones=backbones,
    )


@pytest.fixture(scope="module")
def finished(job: EvaluationJob, tmp_path_factory: pytest.TempPathFactory) -> tuple[Json, Path]:
    """The document of a whole evaluation, and the cache that it left."""
    cache = tmp_path_factory.mktemp("cache")
    return evaluate(job, cache, _silent).document, cache


def _timeless(document: Json) -> str:
    return json.dumps({key: value for key, value in document.items() if key != "times"}, sort_keys=True)


def test_the_document_has_every_figure_with_its_interval(finished: tuple[Json, Path]) -> None:
    document, _ = finished
    for variant in ("w8", "w4"):
        for prompt_set, count in (("home", 22), ("away", 10)):
            for metric in ("psnr", "ssim", "latent_mse", "trajectory", "image_cosine", "prompt_accuracy"):
                entry = document["variants"][variant][prompt_set][metric]
                low, high = entry["ci95"]
                assert low <= entry["mean"] <= high and entry["count"] == count
        assert document["variants"][variant]["home"]["frechet"]["ci95"] is not None
        assert "no interval" in document["variants"][variant]["away"]["frechet"]["reason"]
    assert set(document["protocol"]["not_measured"]) == {"clip_score", "lpips"}
    assert document["times"]["peak_resident_bytes"] > 0


def test_the_floors_are_in_order(finished: tuple[Json, Path]) -> None:
    document, _ = finished
    floors, w8 = document["floors"], document["variants"]["w8"]["home"]
    for metric in ("psnr", "ssim"):
        assert floors["bfloat16"][metric]["mean"] > w8[metric]["mean"] > floors["other_seeds"][metric]["mean"]
    assert floors["bfloat16"]["frechet"]["mean"] < w8["frechet"]["mean"] < floors["finite_sample"]["frechet"]["mean"]
    assert floors["bfloat16"]["prompt_sets"]["home"]["psnr"] == floors["bfloat16"]["psnr"]


def test_the_means_are_those_of_a_plain_loop_over_the_same_noise(
    finished: tuple[Json, Path], tiny: TinyWorld, job: EvaluationJob
) -> None:
    document, _ = finished
    d = tiny.description
    sampling = Sampling("", "", job.seed, d.num_inference_steps, d.guidance_scale, d.width, d.height)
    prompts = list(job.prompt_sets[0].prompts)
    arms = {"w4": load_variant(tiny.folder(4))}
    plain = evaluate_in_memory(load_reference(d), arms, prompts, sampling, ("psnr", "ssim"), _silent)["w4"]
    for metric, statistic in plain.items():
        assert document["variants"]["w4"]["home"][metric]["mean"] == pytest.approx(statistic.mean, rel=1e-6)


def test_fewer_bits_are_worse_and_the_test_says_so(finished: tuple[Json, Path]) -> None:
    document, _ = finished
    tests = {(t["prompt_set"], t["metric"]): t for t in document["comparisons"] if "reference" not in (t["a"], t["b"])}
    for metric in ("ssim", "psnr", "latent_mse", "trajectory"):
        test = tests["home", metric]
        assert (test["a"], test["b"]) == ("w8", "w4") and test["p"] < 0.01
        assert test["sentence"] == f"w8 is better than w4 on {metric}, p = {test['p']:.2g}"


def test_the_generalization_gap_is_the_difference_of_the_sets(finished: tuple[Json, Path]) -> None:
    variant = finished[0]["variants"]["w4"]
    assert variant["generalization"]["calibrated_on"] == "home"
    gap = variant["generalization"]["away"]
    for metric, sign in (("psnr", 1.0), ("latent_mse", -1.0), ("frechet", -1.0)):
        expected = sign * (variant["home"][metric]["mean"] - variant["away"][metric]["mean"])
        assert gap[metric]["mean"] == pytest.approx(expected)


def test_a_second_run_draws_nothing_and_says_the_same(
    finished: tuple[Json, Path], job: EvaluationJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, cache = finished
    monkeypatch.setattr(run_module, "draw", _never)
    assert _timeless(evaluate(job, cache, _silent).document) == _timeless(document)


def _never(*_: object) -> Drawn:
    raise AssertionError("everything was drawn before")


def test_a_run_that_is_killed_goes_on_with_the_same_figures(
    finished: tuple[Json, Path], job: EvaluationJob, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def kill_after(pictures: int) -> Callable[[str, int, int], None]:
        seen = [0]

        def count(*_: object) -> None:
            seen[0] += 1
            if seen[0] == pictures:
                raise Killed

        return count

    for calls in (2, 7, 11):
        with pytest.raises(Killed):
            evaluate(job, tmp_path, kill_after(calls))
    damaged = sorted(tmp_path.rglob("*.safetensors"))[0]
    damaged.write_bytes(damaged.read_bytes()[:100])  # as a full disk leaves it
    assert _timeless(evaluate(job, tmp_path, _silent).document) == _timeless(finished[0])
    assert not list(tmp_path.rglob(".part-*"))


def test_the_reference_is_shared_by_all_variants_and_by_shorter_runs(
    finished: tuple[Json, Path], job: EvaluationJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cache = finished
    real = run_module.draw

    def no_reference(pipeline: Any, *rest: Any) -> Drawn:
        assert quantized_layers(pipeline.unet), "only the worst pictures of the shorter set are drawn again"
        return real(pipeline, *rest)

    monkeypatch.setattr(run_module, "draw", no_reference)
    monkeypatch.setattr(run_module, "measure", _never)
    shorter = replace(job.prompt_sets[0], prompts=job.prompt_sets[0].prompts[:8])
    # The first eight are the same batch, and the variant's name does not matter.
    evaluate(replace(job, prompt_sets=(shorter,), variants={"again": job.variants["w8"]}), cache, _silent)


def test_another_seed_gives_other_pictures(finished: tuple[Json, Path], job: EvaluationJob, tmp_path: Path) -> None:
    one = replace(job.prompt_sets[0], prompts=job.prompt_sets[0].prompts[:4])
    other = evaluate(replace(job, prompt_sets=(one,), seed=1), tmp_path, _silent).document
    assert other["variants"]["w8"]["home"]["psnr"]["mean"] != finished[0]["variants"]["w8"]["home"]["psnr"]["mean"]


def test_one_prompt_has_means_and_no_intervals(job: EvaluationJob, tmp_path: Path) -> None:
    one = replace(job.prompt_sets[0], prompts=job.prompt_sets[0].prompts[:1])
    document = evaluate(replace(job, prompt_sets=(one,)), tmp_path, _silent).document
    found = document["variants"]["w8"]["home"]
    assert found["psnr"]["mean"] is not None and found["psnr"]["ci95"] is None
    assert found["frechet"]["mean"] is None and "two pictures" in found["frechet"]["reason"]
    assert all(test["p"] is None for test in document["comparisons"])
    json.dumps(document, allow_nan=False)


def test_pictures_that_are_not_finite_are_counted_and_not_averaged_in(
    finished: tuple[Json, Path], job: EvaluationJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = run_module.draw

    def spoiled(pipeline: Any, texts: list[str], *rest: Any) -> Drawn:
        drawn = real(pipeline, texts, *rest)
        if quantized_layers(pipeline.unet):
            drawn.values[1] = torch.nan
            drawn.trajectory[1, -1] = torch.inf
            drawn.values[3:4] = 0.25
        return drawn

    monkeypatch.setattr(run_module, "draw", spoiled)
    only = replace(job, variants={"w8": job.variants["w8"]}, prompt_sets=job.prompt_sets[1:])
    document = evaluate(only, tmp_path, _silent).document
    ids = [prompt.id for prompt in only.prompt_sets[0].prompts]
    variant, clean = document["variants"]["w8"], finished[0]["variants"]["w8"]["away"]
    assert variant["invalid_pictures"]["away"] == [ids[i] for i in (1, 3, 9)]
    assert variant["away"]["psnr"]["count"] == 7 and "3 of 10" in variant["away"]["psnr"]["reason"]
    assert variant["away"]["frechet"]["count"] == 7
    assert variant["away"]["psnr"]["mean"] == pytest.approx(clean["psnr"]["mean"], abs=1.0)
    json.dumps(document, allow_nan=False)


def test_a_variant_that_disappears_is_reported_and_the_others_are_measured(
    job: EvaluationJob, tiny: TinyWorld, tmp_path: Path
) -> None:
    doomed = tmp_path / "doomed"
    shutil.copytree(tiny.folder(4), doomed)

    def delete(arm: str, *_: int) -> None:
        if arm == "w8":
            shutil.rmtree(doomed, ignore_errors=True)

    variants = {"w8": tiny.folder(8), "doomed": doomed, "never": tmp_path / "never"}
    one = (replace(job.prompt_sets[0], prompts=job.prompt_sets[0].prompts[:2]),)
    asked = replace(job, variants=variants, prompt_sets=one)
    document = evaluate(asked, tmp_path / "cache", delete).document
    assert "psnr" in document["variants"]["w8"]["home"]
    assert "home" not in document["variants"]["doomed"] and document["variants"]["doomed"]["error"]
    assert document["variants"]["never"] == {"card": None, "error": document["variants"]["never"]["error"]}
    assert not any("doomed" in (test["a"], test["b"]) for test in document["comparisons"])
    with pytest.raises(CheckpointError):
        evaluate(replace(job, variants={"doomed": doomed}), tmp_path / "cache", _silent)


def test_prompts_that_calibration_has_seen_are_refused(job: EvaluationJob, tiny: TinyWorld, tmp_path: Path) -> None:
    card = tiny.cards[8]
    for used in (card.calibration_prompt_ids[0], card.report.prompt_ids[0]):
        with pytest.raises(EvaluationError, match="never met"):
            evaluate(replace(job, prompt_sets=(PromptSet("own", (Prompt(used, "x"),)),)), tmp_path, _silent)
    seen = {card.calibration_prompt_ids[0]: SeenPrompt("home", "a red box")}
    renamed = PromptSet("own", (Prompt("new-id", "a red box"),))
    with pytest.raises(EvaluationError, match="new-id"):
        evaluate(replace(job, prompt_sets=(renamed,), seen=seen), tmp_path, _silent)


def test_sets_of_one_name_and_no_variants_are_refused(job: EvaluationJob, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="different names"):
        evaluate(replace(job, prompt_sets=(job.prompt_sets[0],) * 2), tmp_path, _silent)
    with pytest.raises(EvaluationError, match="at least one variant"):
        evaluate(replace(job, variants={}), tmp_path, _silent)


def test_a_metric_that_is_asked_for_is_measured_or_refused(backbones: Path) -> None:
    found = Backbones(backbones)
    possible, reasons = choose((), found, 64, 64)
    assert {"psnr", "frechet"} <= {metric.key for metric in possible} and "lpips" in reasons
    assert [metric.key for metric in choose(("ssim", "kid:judge"), found, 64, 64)[0]] == ["ssim", "kid"]
    for asked, error in (
        (("lpips",), BackboneMissing),
        (("frechet:inception",), BackboneMissing),
        (("beauty",), EvaluationError),
        (("psnr:judge",), EvaluationError),
        (("ssim", "ssim"), EvaluationError),
    ):
        with pytest.raises(error):
            choose(asked, found, 64, 64)
    with pytest.raises(PictureMismatch):
        choose(("frechet",), found, 128, 128)


def test_pictures_are_written_once_under_their_place_in_the_set(job: EvaluationJob, tmp_path: Path) -> None:
    asked = replace(
        job, prompt_sets=job.prompt_sets[1:], variants={"w8": job.variants["w8"]}, pictures=tmp_path / "out"
    )
    evaluate(asked, tmp_path / "cache", _silent)
    for arm in ("reference", "bfloat16", "other_seeds", "w8"):
        folder = tmp_path / "out" / arm / "away"
        rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [row["file"] for row in rows] == [f"{i:05}.png" for i in range(10)]
        assert [row["prompt"] for row in rows] == [prompt.text for prompt in asked.prompt_sets[0].prompts]
        assert all(Image.open(folder / row["file"]).size == (64, 64) for row in rows)
    arms = [
        np.asarray(Image.open(tmp_path / "out" / arm / "away/00003.png"), dtype=float) for arm in ("reference", "w8")
    ]
    mse = ((arms[0] - arms[1]) ** 2).mean()
    measured = evaluate(replace(asked, pictures=None), tmp_path / "cache", _silent).document
    assert 10 * np.log10(255**2 / mse) == pytest.approx(measured["variants"]["w8"]["away"]["psnr"]["mean"], abs=6.0)
    (tmp_path / "out/w8/away/00003.png").unlink()
    evaluate(asked, tmp_path / "cache", _silent)
    again = np.asarray(Image.open(tmp_path / "out/w8/away/00003.png"), dtype=float)
    assert (again == arms[1]).all()


def test_distances_to_real_pictures(job: EvaluationJob, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    rng = np.random.default_rng(0)
    for i in range(25):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(real / f"{i}.png")
    asked = replace(job, variants={"w8": job.variants["w8"]}, prompt_sets=job.prompt_sets[1:], real=real)
    document = evaluate(asked, tmp_path / "cache", _silent).document
    variant = document["variants"]["w8"]["away"]
    assert variant["frechet_to_real"]["mean"] > variant["frechet"]["mean"]
    assert document["reference"]["away"]["frechet_to_real"]["mean"] > 0.0
    Image.new("RGB", (32, 64)).save(real / "odd.png")
    with pytest.raises(PictureMismatch, match="32 x 64"):
        evaluate(asked, tmp_path / "cache", _silent)
    (real / "odd.png").write_bytes(b"no picture")
    with pytest.raises(EvaluationError, match=r"odd\.png"):
        evaluate(asked, tmp_path / "cache", _silent)
    with pytest.raises(QuantError, match="0 pictures"):
        evaluate(replace(asked, real=tmp_path / "nowhere"), tmp_path / "cache", _silent)
