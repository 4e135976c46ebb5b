"""What a card reports, held against a plain loop over the same noise with the formulas written out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, PNDMScheduler
from scipy.stats import bootstrap

from contract.card import Statistic
from quant.checkpoints.pipelines import load_reference, load_variant
from quant.errors import InvalidPicture
from quant.fidelity.bfloat16 import bfloat16_copy
from quant.fidelity.consistency import consistency
from quant.fidelity.metric_choice import CONSISTENCY
from quant.quantization.card import HELD_OUT_SEED
from quant.sampling.generation import generate_batch
from quant.sampling.progress import silent
from quant.sampling.prompts import prompts_from_texts
from quant.sampling.request import Sampling
from tests.support.tiny_world import TinyWorld

SETTINGS = Sampling(seed=2**32 - 3, num_inference_steps=2, guidance_scale=3.0, width=64, height=64)
"""The seeds of some prompts wrap around."""
TEXTS = [f"prompt {letter}" for letter in "abcdefghij"]


def _by_hand(reference: DiffusionPipeline, variant: DiffusionPipeline, sampling: Sampling) -> dict[str, list[float]]:
    """PSNR and the error of latents of every picture, drawn eight at a time, as float32 gives them."""
    scores: dict[str, list[float]] = {"psnr": [], "latent_mse": []}
    for start in range(0, len(TEXTS), 8):
        texts = TEXTS[start : start + 8]
        seeds = [(sampling.seed + start + i) % 2**32 for i in range(len(texts))]
        first, second = (generate_batch(pipeline, texts, seeds, sampling) for pipeline in (reference, variant))
        error = ((second.values - first.values) ** 2).flatten(1).mean(dim=1).double()
        scores["psnr"] += (-10.0 * error.log10()).tolist()
        scores["latent_mse"] += (second.latents - first.latents).square().mean(dim=(1, 2, 3)).tolist()
    return scores


def _interval(values: list[float]) -> tuple[float, float]:
    low, high = bootstrap(
        (np.array(values),), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(low), float(high)


def test_figures_are_means_over_pictures_from_the_same_noise_with_intervals(tiny: TinyWorld) -> None:
    reference, variant = load_reference(tiny.description), load_variant(tiny.folder(4))
    floor = bfloat16_copy(reference)
    prompts = prompts_from_texts(TEXTS)
    measured = consistency(reference, {"variant": variant, "floor": floor}, prompts, SETTINGS, CONSISTENCY, silent)
    for name, pipeline in (("variant", variant), ("floor", floor)):
        assert set(measured[name]) == set(CONSISTENCY)
        by_hand = _by_hand(reference, pipeline, SETTINGS)
        exact = by_hand["latent_mse"]  # the same operations, so the same to the last digit
        assert measured[name]["latent_mse"] == Statistic(
            mean=float(np.mean(exact)), ci95=_interval(exact), count=len(TEXTS)
        )
        psnr = measured[name]["psnr"]
        assert psnr.mean == pytest.approx(np.mean(by_hand["psnr"]), rel=1e-6)
        assert psnr.ci95 == pytest.approx(_interval(by_hand["psnr"]), rel=1e-6)


def test_fewer_bits_are_worse_and_the_floor_is_nearest(tiny: TinyWorld) -> None:
    reference = load_reference(tiny.description)
    pipelines = {f"w{bits}": load_variant(tiny.folder(bits)) for bits in (8, 4)} | {"floor": bfloat16_copy(reference)}
    prompts = prompts_from_texts(TEXTS)
    measured = consistency(reference, pipelines, prompts, replace(SETTINGS, seed=7), CONSISTENCY, silent)
    psnr = {name: statistics["psnr"].mean or 0.0 for name, statistics in measured.items()}
    assert psnr["floor"] > psnr["w8"] > psnr["w4"]
    assert all(statistics["ssim"].count == len(TEXTS) for statistics in measured.values())


def test_a_card_holds_the_figures_of_its_checkpoint(tiny: TinyWorld) -> None:
    reference, variant = load_reference(tiny.description), load_variant(tiny.folder(8))
    report = tiny.cards[8].report
    assert report.seed == HELD_OUT_SEED
    texts = ["a green cone", "a ring", "two cones"]
    measured = consistency(
        reference,
        {"variant": variant, "floor": bfloat16_copy(reference)},
        prompts_from_texts(texts),
        replace(SETTINGS, seed=report.seed),
        CONSISTENCY,
        silent,
    )
    assert (measured["variant"], measured["floor"]) == (report.metrics, report.noise_floor)


def test_progress_counts_pictures(tiny: TinyWorld) -> None:
    told: list[tuple[str, int, int]] = []

    def tell(stage: str, done: int, total: int, note: str = "", /) -> None:
        told.append((stage, done, total))

    reference = load_reference(tiny.description)
    consistency(reference, {"same": reference}, prompts_from_texts(TEXTS), SETTINGS, ("psnr",), tell)
    assert list(dict.fromkeys(told)) == [("measure", done, 10) for done in (0, 8, 10)]


def test_no_prompts_have_no_figures(tiny: TinyWorld) -> None:
    reference = load_reference(tiny.description)
    measured = consistency(reference, {"same": reference}, [], SETTINGS, ("psnr",), silent)
    assert measured["same"]["psnr"] == Statistic(mean=None, count=0, reason="no values")


def test_what_is_no_picture_is_refused(tiny: TinyWorld) -> None:
    reference, broken = load_reference(tiny.description), load_variant(tiny.folder(8))
    with torch.no_grad():
        broken.vae.decoder.conv_out.weight.zero_()
    with pytest.raises(InvalidPicture, match="picture 0 is one flat colour"):
        consistency(reference, {"broken": broken}, prompts_from_texts(TEXTS[:2]), SETTINGS, ("psnr",), silent)


def test_samplers_of_different_steps_can_be_compared(tiny: TinyWorld) -> None:
    reference, other = load_reference(tiny.description), load_reference(tiny.description)
    other.scheduler = PNDMScheduler.from_config(other.scheduler.config, skip_prk_steps=True)  # takes one step more
    measured = consistency(reference, {"other": other}, prompts_from_texts(TEXTS[:2]), SETTINGS, CONSISTENCY, silent)
    assert measured["other"]["psnr"].count == 2
