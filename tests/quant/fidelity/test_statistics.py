"""Intervals and tests against theory and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from quant.fidelity.statistics import of_halves, paired_difference, spread, summarize, unpaired_difference


def test_the_interval_covers_the_mean_of_normal_values() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(60):
        interval = summarize(rng.normal(3.0, 1.0, 40).tolist()).ci95
        assert interval is not None
        hits += interval[0] < 3.0 < interval[1]
    assert hits >= 50  # 95 % nominal; fewer than 50 of 60 has a chance below 1 in 1,000 even at 92 %


def test_what_cannot_be_averaged_is_told() -> None:
    statistic = summarize([1.0, None, float("inf"), float("nan"), 3.0])
    assert (statistic.mean, statistic.count) == (2.0, 2) and "3 of 5" in str(statistic.reason)
    assert summarize([]).mean is None and summarize([None]).reason is not None
    assert summarize([5.0]).ci95 is None
    assert summarize([5.0, 5.0]).ci95 == (5.0, 5.0)


def test_percentiles() -> None:
    found = spread([float(i) for i in range(101)] + [None])
    assert (found.p5, found.median, found.p95) == (5.0, 50.0, 95.0)
    assert spread([None]).median is None


def test_the_paired_test_agrees_with_the_t_test_on_normal_differences() -> None:
    rng = np.random.default_rng(2)
    for shift in (0.0, 0.1, 0.2, 0.3):
        a = rng.normal(0.0, 5.0, 200)  # what both have in common is far larger than the difference
        b = a - rng.normal(shift, 1.0, 200)
        found = paired_difference(a.tolist(), b.tolist())
        expected = ttest_rel(a, b).pvalue
        assert found.p == pytest.approx(expected, abs=0.03)
        assert found.mean == pytest.approx((a - b).mean())


def test_the_paired_test_is_honest_about_no_difference() -> None:
    rng = np.random.default_rng(3)
    p = [paired_difference(rng.normal(size=30).tolist(), rng.normal(size=30).tolist()).p or 0.0 for _ in range(40)]
    assert sum(value < 0.05 for value in p) <= 7  # 2 expected; more than 7 has a chance below 1 in 1,000
    assert paired_difference([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]).p == 1.0


def test_pairs_with_a_gap_are_left_out_on_both_sides() -> None:
    found = paired_difference([1.0, None, 3.0, float("inf")], [0.0, 5.0, 1.0, 2.0])
    assert (found.count, found.mean) == (2, 1.5)
    lonely = paired_difference([1.0], [0.5])
    assert (lonely.mean, lonely.p, lonely.ci95) == (0.5, None, None)
    assert paired_difference([None], [1.0]).mean is None


def test_the_unpaired_difference_has_the_interval_of_two_means() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(2.0, 1.0, 400), rng.normal(0.5, 2.0, 400)
    found = unpaired_difference(a.tolist(), b.tolist())
    error = 1.96 * np.hypot(a.std() / 20, b.std() / 20)
    assert found.ci95 is not None and found.mean == pytest.approx(a.mean() - b.mean())
    assert found.ci95 == pytest.approx((found.mean - error, found.mean + error), abs=0.03)
    assert unpaired_difference([None], [1.0]).mean is None


def test_halves_give_the_standard_error_of_a_mean() -> None:
    values = np.random.default_rng(5).normal(10.0, 3.0, 500)
    found = of_halves(lambda places: float(values[places].mean()), 500)
    assert found.ci95 is not None and found.mean == pytest.approx(values.mean())
    margin = (found.ci95[1] - found.ci95[0]) / 2
    assert margin == pytest.approx(1.96 * values.std() / 500**0.5, rel=0.25)  # 100 halves: the error itself has 7 %


def test_few_pictures_have_no_interval_and_infinite_distances_no_mean() -> None:
    assert of_halves(lambda places: 1.0, 5).ci95 is None
    assert of_halves(lambda places: float("nan"), 50).mean is None
