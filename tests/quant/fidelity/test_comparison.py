"""One request drawn by both arms: metrics, steps, and the picture of their difference."""

from __future__ import annotations

import numpy as np
import torch

from quant.checkpoints.pipelines import load_reference, load_variant
from quant.fidelity.comparison import compare
from quant.fidelity.difference_map import difference_map
from quant.fidelity.metric_choice import CONSISTENCY
from quant.sampling.request import Sampling
from tests.support.tiny_world import TinyWorld

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
