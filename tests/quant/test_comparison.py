"""Metrics against their formulas, intervals against theory, and the noise floor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from quant.checkpoints.pipelines import load_reference, load_variant
from quant.fidelity.bfloat16 import bfloat16_copy
from quant.fidelity.comparison import CONSISTENCY, compare, difference_map, evaluate
from quant.sampling.prompts import prompts_from_texts
from quant.sampling.request import Sampling
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
