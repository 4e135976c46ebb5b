"""Metrics against their formulas, intervals against theory, and the noise floor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from quant.comparison import CONSISTENCY, bfloat16_copy, compare, difference_map, evaluate
from quant.generation import Sampling
from quant.pipelines import load_reference, load_variant
from quant.prompts import prompts_from_texts
from quant.statistics import summarize
from tests.quant.conftest import TinyWorld

REQUEST = Sampling("a red box", seed=7, num_inference_steps=2, guidance_scale=3.0, width=64, height=64, num_images=2)


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
