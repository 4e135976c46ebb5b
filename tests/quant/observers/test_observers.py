"""What observers remember, against closed forms and known distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import kstest

from quant.errors import QuantError, RecipeMismatch
from quant.observers.ema import EmaObserver
from quant.observers.minmax import MinMaxObserver
from quant.observers.mse import MseObserver, least_error_range, round_to_grid
from quant.observers.reservoir import Reservoir, newcomers
from quant.quantizers.activation import ActivationParameters
from tests.support.fake_quantized import fake_quantized

finite = st.floats(-1e4, 1e4, width=32)
vectors = arrays(np.float32, st.integers(1, 60), elements=finite)
widths = st.sampled_from([2, 4, 6, 8])


def _error(values: torch.Tensor, low: float, high: float, bits: int) -> float:
    quantized = fake_quantized(values, ActivationParameters.from_range(low, high, bits))
    return float((values.double() - quantized.double()).abs().pow(2.4).mean())


def _seen(observer: MseObserver | MinMaxObserver, *batches: torch.Tensor) -> tuple[float, float]:
    for batch in batches:
        observer.observe(batch)
    return observer.low, observer.high


def test_the_moving_average_has_its_closed_form() -> None:
    rng = np.random.default_rng(0)
    batches = rng.normal(size=(9, 20)).astype(np.float32)
    observer = EmaObserver(momentum=0.25)
    for batch in batches:
        observer.observe(torch.from_numpy(batch))
    shares = np.array([0.75**8] + [0.25 * 0.75 ** (8 - i) for i in range(1, 9)])
    assert shares.sum() == pytest.approx(1.0)
    assert observer.low == pytest.approx(shares @ batches.min(axis=1), rel=1e-6)
    assert observer.high == pytest.approx(shares @ batches.max(axis=1), rel=1e-6)


@pytest.mark.parametrize("observer", [EmaObserver(), MseObserver(8)], ids=["ema", "mse"])
def test_observers_are_silent_until_a_value_and_refuse_what_is_not_finite(observer: EmaObserver | MseObserver) -> None:
    observer.observe(torch.empty(0, 3))
    assert observer.low > observer.high
    for bad in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(QuantError, match="not finite"):
            observer.observe(torch.tensor([0.0, bad]))
    assert observer.low > observer.high
    observer.observe(torch.tensor([0.0]))
    assert (observer.low, observer.high) == (0.0, 0.0)


def test_options_that_cannot_be_are_refused() -> None:
    for momentum in (0.0, 1.5, float("nan")):
        with pytest.raises(RecipeMismatch, match="momentum"):
            EmaObserver(momentum)
    for bits, samples, message in ((1, 10, "1 bits"), (9, 10, "9 bits"), (8, 0, "0 values")):
        with pytest.raises(RecipeMismatch, match=message):
            MseObserver(bits, samples)


@settings(max_examples=300, deadline=None)
@given(vectors, finite, finite, widths)
def test_the_grid_is_that_of_activations(values: np.ndarray, a: float, b: float, bits: int) -> None:
    low, high, tensor = min(a, b), max(a, b), torch.from_numpy(values)
    parameters = ActivationParameters.from_range(low, high, bits)
    grid = round_to_grid(tensor, low, high, bits)
    assert torch.equal(grid, parameters.dequantize(parameters.quantize(tensor)))
    assert torch.allclose(grid, fake_quantized(tensor, parameters), rtol=1e-6, atol=1e-6 * (high - low))
    assert torch.equal(tensor, torch.from_numpy(values))


@settings(max_examples=200, deadline=None)
@given(vectors, widths)
def test_the_search_is_never_worse_than_min_max(values: np.ndarray, bits: int) -> None:
    tensor = torch.from_numpy(values)
    widest = _seen(MinMaxObserver(), tensor)
    found = _seen(MseObserver(bits), tensor)
    assert _error(tensor, *found, bits) <= _error(tensor, *widest, bits) * (1 + 1e-4) + 1e-30


def test_the_search_finds_the_best_of_all_candidates() -> None:
    values = torch.randn(5000, generator=torch.Generator().manual_seed(1)).exp()
    low, high = values.min().item(), values.max().item()
    errors = [_error(values, low * (1 - 0.01 * i), high * (1 - 0.01 * i), 4) for i in range(80)]
    found = least_error_range(values, low, high, 4)
    assert _error(values, *found, 4) == pytest.approx(min(errors), rel=1e-5)
    best = 1 - 0.01 * int(np.argmin(errors))
    assert 0.3 < best < 0.9 and found == pytest.approx((low * best, high * best), rel=1e-9)
    assert least_error_range(torch.zeros(9), -1.0, 2.0, 4) == (-1.0, 2.0)  # of equals the widest


def test_one_outlier_does_not_cost_all_others_their_levels() -> None:
    values = torch.randn(4000, generator=torch.Generator().manual_seed(2))
    values[17] = 20.0
    found, widest = _seen(MseObserver(4), values), _seen(MinMaxObserver(), values)
    assert found[1] < 0.9 * widest[1]
    assert _error(values, *found, 4) < 0.7 * _error(values, *widest, 4)


@pytest.mark.parametrize("batch", [300, 5000, 40_000])
def test_the_sample_is_uniform_over_all_that_was_seen(batch: int) -> None:
    """Values are their own positions, so a uniform sample of them is uniform on [0, 1]."""
    everything = torch.arange(120_000, dtype=torch.float32) / 120_000
    p = []
    for seed in range(20):
        observer = MseObserver(8, samples=1000, seed=seed)
        for part in everything.split(batch):
            observer.observe(part)
        sample = observer.sample.numpy()
        assert len(sample) == 1000 == len(np.unique(sample))
        p.append(float(kstest(sample, "uniform").pvalue))
    assert min(p) > 1e-4 and kstest(p, "uniform").pvalue > 1e-3  # samples are as far from uniform as chance has it


def test_every_value_is_kept_while_there_is_room_and_shape_does_not_matter() -> None:
    observer = MseObserver(8, samples=100)
    pictures = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    observer.observe(pictures[:1])
    assert torch.equal(observer.sample.sort().values, pictures[:1].flatten().sort().values)
    observer.observe(pictures[1:].bfloat16())
    assert observer.sample.dtype == torch.float32 and len(observer.sample) == 96
    observer.observe(torch.tensor([1e3]).expand(50))
    assert len(observer.sample) == 100 and 4 <= int((observer.sample == 1e3).sum()) <= 50


def test_the_same_seed_gives_the_same_range_and_the_ends_are_exact() -> None:
    batches = torch.randn(30, 4000, generator=torch.Generator().manual_seed(3)).unbind()
    observers = [MseObserver(4, samples=500, seed=seed) for seed in (0, 0, 1)]
    first, again, other = (_seen(observer, *batches) for observer in observers)
    assert first == again and not torch.equal(observers[0].sample, observers[2].sample)
    for low, high in (first, other):
        widest = _seen(MinMaxObserver(), *batches)
        shrink = low / widest[0]
        assert shrink == pytest.approx(high / widest[1]) and shrink * 100 == pytest.approx(round(shrink * 100))


def test_a_range_is_searched_for_anew_after_a_batch() -> None:
    observer = MseObserver(8)
    assert _seen(observer, torch.tensor([-1.0, 1.0])) == (-1.0, 1.0)
    assert _seen(observer, torch.tensor([-4.0, 4.0]))[1] > 1.0


def test_few_values_are_drawn_of_many() -> None:
    """The cost of a batch late in a calibration does not grow with the batch, but for its range."""
    reservoir, drawn = Reservoir(1000), [0]
    for _ in range(60):
        reservoir.add(torch.zeros(50_000))
        drawn.append(reservoir.drawn)
    each = np.diff(drawn)
    assert each[0] == 1000 and max(each[30:]) < 100
    assert drawn[-1] < 1.3 * 1000 * (1 + np.log(60))
    assert len(reservoir.sample) == 1000


def test_more_values_than_numpy_draws_from() -> None:
    random = np.random.default_rng(0)
    counts = [newcomers(random, 3 * 10**9, 10**9, 1000) for _ in range(50)]
    assert 240 < np.mean(counts) < 260 and min(counts) > 190 and max(counts) < 310  # a quarter of 1000
    assert 10 <= newcomers(random, 990, 10**9, 1000) <= 1000
