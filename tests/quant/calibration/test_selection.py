"""Which steps calibrate, against slow loops written from the papers."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.calibration.selection import (
    Selection,
    TimestepNormal,
    allocation,
    density,
    diversity,
    every_step,
    last_steps,
    normal,
    tdac,
    uniform,
)
from quant.errors import QuantError, RecipeMismatch

STEPS = 12


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _features(seed: int, steps: int = STEPS, batch: int = 3, channels: int = 5) -> torch.Tensor:
    return torch.randn(steps, batch, channels, 2, 3, generator=_generator(seed))


def _drifting(seed: int, speed: float, turning: bool, steps: int = 50, batch: int = 4) -> torch.Tensor:
    """Features that move from one point to another, straight or turning, the later the more `speed` is above 1; every
    batch entry has an offset of its own."""
    generator = _generator(seed)
    start, end, own = (torch.randn(1, n, 16, 1, 1, generator=generator) for n in (1, 1, batch))
    noise = torch.randn(steps, batch, 16, 4, 4, generator=generator)
    way = (torch.linspace(0, 1, steps) ** speed).view(-1, 1, 1, 1, 1)
    angle = way * torch.pi / 2
    mean = 3 * (angle.cos() * start + angle.sin() * end) if turning else start + 3 * way * (end - start)
    return mean + 0.3 * own + 0.1 * noise


def test_uniform_is_an_arithmetic_progression_with_as_many_of_every_step() -> None:
    selection = uniform(trajectories=10, steps=50, selected_steps=8, per_step=3)
    assert sorted({step for _, step in selection}) == [0, 6, 12, 18, 24, 30, 36, 42]
    assert set(Counter(step for _, step in selection).values()) == {3}
    assert {i for i, _ in selection} == {0, 1, 2} and len(set(selection)) == 24
    assert uniform(2, 4, 4, 2) == every_step(2, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((2, 10, 11, 1), "11 steps"), ((2, 10, 5, 3), "3 trajectories"), ((2, 10, 0, 1), "selected_steps")],
)
def test_uniform_refuses_what_is_not_there(arguments: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(RecipeMismatch, match=message):
        uniform(*arguments)


def test_every_and_last_steps() -> None:
    assert set(every_step(3, 4)) == set(itertools.product(range(3), range(4)))
    assert last_steps(2, 5, 2) == ((0, 3), (1, 3), (0, 4), (1, 4))
    for count in (0, 6):
        with pytest.raises(RecipeMismatch):
            last_steps(2, 5, count)


def test_normal_has_the_distribution_of_the_paper() -> None:
    timesteps = [float(t) for t in range(980, -1, -20)]
    selection = normal(7, timesteps, 1000, 20_000, _generator(0))
    assert [i for i, _ in selection[:9]] == [0, 1, 2, 3, 4, 5, 6, 0, 1]
    drawn = np.random.default_rng(1).normal(0.4, 0.4, 200_000) * 1000
    clipped = np.clip(drawn, 0, 999)
    nearest = np.abs(clipped[:, None] - np.array(timesteps)).argmin(axis=1)
    expected = np.bincount(nearest, minlength=50) / len(nearest)
    found = np.bincount([step for _, step in selection], minlength=50) / len(selection)
    assert np.abs(found - expected).max() < 0.012  # 4 sigma of the largest share, 0.16
    assert found[-1] > 0.14  # all that was clipped to timestep 0
    assert selection == normal(7, timesteps, 1000, 20_000, _generator(0))
    assert {step for _, step in normal(1, timesteps, 1000, 5, _generator(0), TimestepNormal(0.9, 0.0))} == {4}
    for distribution in (TimestepNormal(0.4, -1.0), TimestepNormal(float("nan"), 1.0)):
        with pytest.raises(RecipeMismatch, match="distribution"):
            normal(1, timesteps, 1000, 5, _generator(0), distribution)


@pytest.mark.parametrize("radius", [None, 0.0, 2.0, 1e9])
def test_density_and_diversity_equal_a_slow_loop(radius: float | None) -> None:
    features = _features(1)
    features[7] = features[2]
    features[4, 0, :, 0, 0] = 0.0
    exact = features.double().numpy()
    errors = {(k, j): ((exact[k] - exact[j]) ** 2).mean() for k in range(STEPS) for j in range(STEPS) if j != k}
    limit = float(np.median([errors[k, j] for k, j in errors if k < j])) if radius is None else radius
    near = [sum(errors[k, j] <= limit for j in range(STEPS) if j != k) for k in range(STEPS)]
    assert density(features, radius).tolist() == near
    apart = [sum(_apart(exact[k], exact[j]) for j in range(STEPS) if j != k) for k in range(STEPS)]
    assert np.allclose(diversity(features).numpy(), apart, rtol=1e-12, atol=1e-10)


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    total = 0.0
    for n, y, x in itertools.product(range(a.shape[0]), range(a.shape[2]), range(a.shape[3])):
        norms = np.linalg.norm(a[n, :, y, x]) * np.linalg.norm(b[n, :, y, x])
        total += 1.0 - (a[n, :, y, x] @ b[n, :, y, x] / norms if norms else 0.0)
    return total


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 15), st.integers(1, 200), st.floats(0.0, 1e6))
def test_allocation_sums_up(seed: int, steps: int, samples: int, diversity_weight: float) -> None:
    numbers = allocation(_features(seed, steps), samples, diversity_weight, None)
    assert len(numbers) == steps and sum(numbers) == samples and min(numbers) >= 0


def test_rounding_is_made_good_as_the_authors_do() -> None:
    constant = torch.ones(7, 1, 2, 1, 1)
    assert allocation(constant, 24, 1.0, None) == [4, 4, 4, 3, 3, 3, 3]  # 24/7 rounds to 3, three are missing
    assert allocation(constant, 25, 1.0, None) == [4, 4, 4, 4, 3, 3, 3]  # 25/7 rounds to 4, three are too many
    assert allocation(constant[:1], 5, 1.0, None) == [5]


def test_constant_features_are_taken_uniformly() -> None:
    one = torch.randn(1, 2, 5, 2, 3, generator=_generator(3))
    scaled = one * torch.tensor([1.0, 3.0, 0.7, 11.0]).view(-1, 1, 1, 1, 1)  # equal directions but for rounding
    assert allocation(one.expand(4, -1, -1, -1, -1), 40, 1.0, None) == [10] * 4
    assert allocation(torch.zeros(4, 2, 5, 2, 3), 40, 1.0, None) == [10] * 4
    assert allocation(scaled, 40, 1.0, radius=1e9) == [10] * 4
    assert allocation(scaled, 40, 1e6, None) == allocation(scaled, 40, 0.0, None)


def test_the_weight_moves_from_the_order_of_density_to_that_of_diversity() -> None:
    features = _features(4)
    for weight, score in ((0.0, density(features, None).double()), (1e9, diversity(features))):
        numbers = allocation(features, 10_000, weight, None)
        assert all(numbers[k] >= numbers[j] for k, j in itertools.permutations(range(STEPS), 2) if score[k] > score[j])
        assert len(set(numbers)) > 3


def test_repeated_steps_are_denser() -> None:
    features = _features(5)
    features[8:] = features[8] + 0.01 * _features(6)[8:]
    counts = density(features, None)
    assert counts[8:].min() >= 3 and counts[8:].min() > density(_features(5), 0.1).max()
    numbers = allocation(features, 1000, 0.0, 0.1)
    assert numbers[:8] == [0] * 8 and numbers[8:] == [250] * 4


def test_tdac_takes_every_trajectory_once_and_repeats_itself() -> None:
    features = _features(7)
    selection = tdac(features, 100, 1.0, None, _generator(0))
    assert [i for i, _ in selection] == list(range(100))
    counts = Counter(step for _, step in selection)
    assert [counts[k] for k in range(STEPS)] == allocation(features, 100, 1.0, None)
    assert selection == tdac(features, 100, 1.0, None, _generator(0))
    assert selection != tdac(features, 100, 1.0, None, _generator(1))
    assert [step for _, step in selection] != sorted(step for _, step in selection)


def test_tdac_refuses_what_it_cannot_use() -> None:
    with pytest.raises(RecipeMismatch, match="11 of them are too few for 12 steps"):
        tdac(_features(0), STEPS - 1, 1.0, None, _generator(0))
    for bad in (float("nan"), float("inf")):
        features = _features(0)
        features[3, 1, 2, 0, 1] = bad
        with pytest.raises(QuantError, match="not finite"):
            tdac(features, 50, 1.0, None, _generator(0))
    with pytest.raises(QuantError, match="T, N, C"):
        density(torch.zeros(3, 4), None)
    with pytest.raises(RecipeMismatch, match="radius"):
        density(_features(0), -1.0)
    for weight in (-1.0, float("inf"), float("nan")):
        with pytest.raises(RecipeMismatch, match="diversity_weight"):
            allocation(_features(0), 20, weight, None)


@pytest.mark.parametrize("turning", [False, True])
@pytest.mark.parametrize("speed", [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("seed", range(4))
def test_tdac_stands_for_all_steps_better_than_last_steps_and_the_normal_sampler(
    seed: int, speed: float, turning: bool
) -> None:
    """No law: where noise grows along a straight way, density prefers the quiet steps, and the normal one can win."""
    features = _drifting(seed, speed, turning)
    timesteps = [float(t) for t in range(980, -1, -20)]
    found = _distance(features, tdac(features, 256, 1.0, None, _generator(seed)))
    assert found <= 0.25 * _distance(features, last_steps(256, 50, 5))
    assert found <= _distance(features, normal(256, timesteps, 1000, 256, _generator(seed)))


def _distance(features: torch.Tensor, selection: Selection) -> float:
    """How far mean and standard deviation, by channel, of the features at selected steps are from those of all."""
    by_channel = features.transpose(1, 2).flatten(2)  # [T, C, N h w]
    chosen, everything = by_channel[[step for _, step in selection]], by_channel
    mean = chosen.mean(dim=(0, 2)) - everything.mean(dim=(0, 2))
    std = chosen.std(dim=(0, 2)) - everything.std(dim=(0, 2))
    return float(torch.cat([mean, std]).norm())
