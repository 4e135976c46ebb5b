"""Random choices: their probability, their independence, and that a seed fixes them."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from quant.layers.trainable.chance import chosen

COUNT = 1_000_003  # no multiple of the elements that are drawn together


@pytest.mark.parametrize("share", [0.001, 0.3, 0.5, 0.9, 1.0])
def test_every_place_is_chosen_with_the_same_probability(share: float) -> None:
    found = chosen((COUNT,), share, torch.Generator().manual_seed(0))
    for place in range(4):
        own = found[place::4]
        assert stats.binomtest(int(own.sum()), len(own), share).pvalue > 1e-4


def test_neighbours_do_not_know_of_each_other() -> None:
    found = chosen((COUNT,), 0.5, torch.Generator().manual_seed(1)).double()
    for distance in (1, 2, 3, 4):
        correlation = stats.pearsonr(found[:-distance].numpy(), found[distance:].numpy()).statistic
        assert abs(correlation) < 4.0 / math.sqrt(COUNT)


def test_a_share_too_small_for_the_bits_still_chooses_some() -> None:
    assert 0 < int(chosen((COUNT,), 1e-9).sum()) < 60


def test_the_seed_fixes_the_choice_and_shapes_are_as_asked() -> None:
    first, second = (chosen((3, 1, 5), 0.5, torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(first, second) and first.shape == (3, 1, 5) and first.dtype == torch.bool
    torch.manual_seed(3)
    globally = chosen((64,), 0.5)
    torch.manual_seed(3)
    assert torch.equal(globally, chosen((64,), 0.5))
    assert chosen((0, 4), 0.5).shape == (0, 4)
