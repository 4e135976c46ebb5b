"""Metrics against their formulas, intervals against theory, and the noise floor."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

import quant.metrics
from quant.comparison import CONSISTENCY, bfloat16_copy, compare, difference_map, evaluate, measure
from quant.errors import BackboneMissing
from quant.generation import Generation, Sampling
from quant.judge import Judge, load_judge
from quant.pair import Pair
from quant.pipelines import load_reference, load_variant
from quant.prompts import prompts_from_texts
from quant.registry import names
from quant.statistics import summarize
from tests.quant.conftest import TinyWorld

REQUEST = Sampling("a red box", seed=7, num_inference_steps=2, guidance_scale=3.0, width=64, height=64, num_images=2)


def _generation(values: torch.Tensor) -> Generation:
    return Generation([Image.new("RGB", (1, 1))] * len(values), values * 3.0, values)


def _pair(noise: float, attributes: list[dict[str, str]] | None = None) -> Pair:
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand((2, 3, 32, 32), generator=generator)
    noisy = (clean + noise * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
    judge = Judge(heads=[("floor", ["light", "dark"])], image_size=32)
    return Pair(_generation(clean), _generation(noisy), attributes or [{}, {}], lambda: judge)


def test_psnr_and_latent_mse_are_their_formulas() -> None:
    pair = _pair(0.05)
    scores = measure(pair, ("psnr", "latent_mse"))
    for i in range(2):
        error = (pair.reference.values[i] - pair.variant.values[i]).double().numpy()
        assert scores["psnr"][i] == pytest.approx(-10 * math.log10(np.mean(error**2)), rel=1e-5)
        assert scores["latent_mse"][i] == pytest.approx(9 * np.mean(error**2), rel=1e-4)


@pytest.mark.parametrize("metric", CONSISTENCY)
def test_identical_is_perfect_and_noise_makes_it_worse(metric: str) -> None:
    perfect = {"psnr": None, "ssim": pytest.approx(1.0), "latent_mse": 0.0}[metric]
    assert measure(_pair(0.0), (metric,))[metric] == [perfect, perfect]
    mild, strong = (measure(_pair(noise), (metric,))[metric][0] for noise in (0.02, 0.2))
    assert mild is not None and strong is not None
    assert mild < strong if metric == "latent_mse" else mild > strong


def test_prompt_accuracy_is_the_share_of_right_answers() -> None:
    pair = _pair(0.0, [{"floor": "light"}, {}])
    answer = pair.judge().read(pair.variant.values * 2 - 1)[0]["floor"]
    assert measure(pair, ("prompt_accuracy",))["prompt_accuracy"] == [float(answer == "light"), None]


def test_every_metric_of_the_folder_scores_a_pair() -> None:
    scores = measure(_pair(0.1), names(quant.metrics))
    assert all(len(values) == 2 for values in scores.values()) and set(CONSISTENCY) < set(scores)


def test_a_missing_judge_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(BackboneMissing, match=r"shapes\.train judge"):
        load_judge(tmp_path)


def test_difference_map_is_black_where_nothing_differs() -> None:
    reference, variant = torch.zeros(3, 8, 8), torch.zeros(3, 8, 8)
    variant[:, :4] = 0.5
    pixels = np.asarray(difference_map(reference, variant)).astype(int)
    assert pixels.shape == (8, 8, 3) and pixels[6].sum() < 100 < pixels[1].sum()


def test_compare_draws_both_arms(tiny: TinyWorld) -> None:
    steps: list[tuple[int, int]] = []
    reference, variant = load_reference(tiny.description), load_variant(tiny.folder(8))
    result = compare(reference, variant, REQUEST, lambda step, total: steps.append((step, total)))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert set(result.metrics) == set(CONSISTENCY)
    assert all(value is not None and value > 30 for value in result.metrics["psnr"])
    assert len(result.differences) == len(result.variant.pictures) == 2
    assert compare(reference, reference, REQUEST).metrics["psnr"] == [None, None]


def test_fewer_bits_are_worse_and_noise_is_least(tiny: TinyWorld) -> None:
    reference: StableDiffusionPipeline = load_reference(tiny.description)
    arms = {f"w{bits}": load_variant(tiny.folder(bits)) for bits in (8, 4)} | {"floor": bfloat16_copy(reference)}
    prompts = prompts_from_texts([f"prompt {'abcdefghij'[i]}" for i in range(10)])
    measured = evaluate(reference, arms, prompts, replace(REQUEST, num_images=1), CONSISTENCY, lambda *_: None)
    psnr = {name: statistics["psnr"].mean for name, statistics in measured.items()}
    assert psnr["floor"] > psnr["w8"] > psnr["w4"]  # type: ignore[operator]
    assert all(statistics["ssim"].count == 10 for statistics in measured.values())


def test_the_interval_covers_the_mean_of_normal_values() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(60):
        interval = summarize(rng.normal(3.0, 1.0, 40).tolist()).ci95
        assert interval is not None
        hits += interval[0] < 3.0 < interval[1]
    assert hits >= 50  # 95 % nominal; fewer than 50 of 60 has a chance below 1 in 1,000 even at 92 %


def test_what_cannot_be_averaged_is_told() -> None:
    statistic = summarize([1.0, None, float("inf"), 3.0])
    assert (statistic.mean, statistic.count) == (2.0, 2) and "2 of 4" in str(statistic.reason)
    assert summarize([]).mean is None and summarize([None]).reason is not None
    assert summarize([5.0]).ci95 is None
