"""Bit-widths of layers against all choices there are."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.calibration.bit_allocation import Candidate, greedy, integer_programme, ranking, sqnr
from quant.errors import QuantError, RecipeMismatch

INFINITE = float("inf")


def _measured(seed: int, layers: int, widths: tuple[int, ...] = (3, 4, 8)) -> list[Candidate]:
    """Layers of sizes and sensitivities far apart; about 6 dB a bit, some of them better with fewer bits."""
    draw = random.Random(seed)
    found = []
    for layer in range(layers):
        size, at_base = draw.choice([64, 1000, 9216, draw.randrange(1, 100_000)]), draw.gauss(20.0, 8.0)
        for bits in widths:
            found.append(Candidate(f"layer{layer}", bits, size, at_base + 6.0 * (bits - 4) + draw.gauss(0.0, 4.0)))
    return found


def _average_bits(bits: dict[str, int], sizes: dict[str, int]) -> float:
    """The mean width of a weight."""
    assert bits.keys() == sizes.keys()
    return sum(bits[layer] * sizes[layer] for layer in bits) / sum(sizes.values())


def _total_noise(bits: dict[str, int], candidates: list[Candidate]) -> float:
    """The model's noise-to-signal ratio, if noises of layers add up."""
    measured = {(one.layer, one.bits): 10.0 ** (-one.sqnr / 10.0) for one in candidates}
    return math.fsum(measured[choice] for choice in bits.items())


def _sizes(candidates: list[Candidate]) -> dict[str, int]:
    return {one.layer: one.parameters for one in candidates}


def _brute_force(candidates: list[Candidate], target: float) -> float:
    sizes = _sizes(candidates)
    options = [[one.bits for one in candidates if one.layer == layer] for layer in sizes]
    choices = (dict(zip(sizes, widths, strict=True)) for widths in itertools.product(*options))
    return min(_total_noise(bits, candidates) for bits in choices if _average_bits(bits, sizes) <= target + 1e-9)


def test_sqnr_by_definition() -> None:
    reference = torch.tensor([3.0, 4.0])
    assert sqnr(reference, torch.tensor([3.0, 3.5])) == pytest.approx(20.0)
    assert sqnr(reference, reference.clone()) == INFINITE
    assert sqnr(torch.zeros(2), reference) == -INFINITE
    generator = torch.Generator().manual_seed(0)
    signal, noise = (torch.randn(200_000, generator=generator, dtype=torch.float64) for _ in range(2))
    assert sqnr(signal, signal + 0.01 * noise) == pytest.approx(40.0, abs=0.05)
    for quantized in (torch.tensor([3.0]), torch.tensor([3.0, math.nan])):
        with pytest.raises(QuantError, match="no SQNR"):
            sqnr(reference, quantized)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.7, 3.9, 5.0]))
def test_greedy_lifts_the_top_of_the_list_within_the_target(seed: int, extra: float) -> None:
    candidates = _measured(seed, 12)
    bits = greedy(candidates, 4, 8, extra)
    assert _average_bits(bits, _sizes(candidates)) <= 4 + extra + 1e-9
    order = ranking(candidates, 4, 8)
    lifted = [layer for layer, width in bits.items() if width == 8]
    assert set(lifted) == {layer for layer, _ in order[: len(lifted)]}
    left = order[len(lifted) :]
    if left and left[0][1] > 0.0:  # it stopped because the next one does not fit
        assert _average_bits(bits | {left[0][0]: 8}, _sizes(candidates)) > 4 + extra


def test_greedy_prefers_the_sensitive_and_the_small() -> None:
    candidates = [Candidate("large", 4, 800, 10.0), Candidate("small", 4, 100, 10.0), Candidate("calm", 4, 100, 30.0)]
    assert [layer for layer, _ in ranking(candidates, 4, 8)] == ["small", "large", "calm"]
    assert greedy(candidates, 4, 8, 0.4) == {"large": 4, "small": 8, "calm": 4}
    assert greedy(candidates, 4, 8, 4.0) == {"large": 8, "small": 8, "calm": 8}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.2, 0.5, 1.0, 2.5]))
def test_the_programme_equals_brute_force(seed: int, extra: float) -> None:
    candidates = _measured(seed, 6)
    bits = integer_programme(candidates, 4, extra)
    assert bits.keys() == _sizes(candidates).keys()
    assert _average_bits(bits, _sizes(candidates)) <= 4 + extra + 1e-9
    assert _total_noise(bits, candidates) == pytest.approx(_brute_force(candidates, 4 + extra), rel=1e-7)


@pytest.mark.parametrize("seed", range(12))
def test_the_programme_equals_dynamic_programming_over_many_layers(seed: int) -> None:
    draw = random.Random(seed)
    sizes = {f"layer{i}": draw.randrange(1, 30) for i in range(60)}
    candidates = [
        Candidate(layer, bits, size, draw.gauss(20.0, 3.0) + 6.0 * (bits - 4))
        for layer, size in sizes.items()
        for bits in (2, 4, 8)
    ]
    least = [0.0] * (int(4.5 * sum(sizes.values())) + 1)  # the least noise with so many bits, layer after layer
    for layer in sizes:
        options = [(one.bits * one.parameters, one.noise) for one in candidates if one.layer == layer]
        least = [
            min((least[bits - size] + noise for size, noise in options if size <= bits), default=INFINITE)
            for bits in range(len(least))
        ]
    found = integer_programme(candidates, 4, 0.5)
    assert _total_noise(found, candidates) == pytest.approx(least[-1], rel=1e-7)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 4.0))
def test_the_programme_is_never_worse_than_greedy(seed: int, extra: float) -> None:
    candidates = _measured(seed, 40, (2, 4, 6, 8))
    best, simple = integer_programme(candidates, 4, extra), greedy(candidates, 4, 8, extra)
    assert _average_bits(best, _sizes(candidates)) <= 4 + extra + 1e-9
    assert _total_noise(best, candidates) <= _total_noise(simple, candidates) + 1e-8 * _total_noise(
        dict.fromkeys(simple, 4), candidates
    )


def test_no_bits_are_spent_on_layers_without_noise() -> None:
    candidates = [
        *(Candidate("exact", bits, 10, INFINITE) for bits in (3, 4, 8)),
        Candidate("noisy", 4, 10, 15.0),
        Candidate("noisy", 8, 10, INFINITE),
    ]
    assert integer_programme(candidates, 4, 2.0) == {"exact": 3, "noisy": 8}
    assert greedy(candidates, 4, 8, 4.0) == {"exact": 4, "noisy": 8}
    assert integer_programme(candidates[:3], 4, 1.0) == {"exact": 3}
    assert integer_programme([Candidate("only", 4, 7, 12.3)], 4, 0.0) == {"only": 4}


def test_the_target_is_met_to_the_last_bit() -> None:
    candidates = [Candidate(f"l{i}", bits, 1, 10.0 + bits) for i in range(10) for bits in (4, 5)]
    assert sum(integer_programme(candidates, 4, 0.3).values()) == 43  # 0.3 as a double is less than three tenths
    assert sum(greedy(candidates, 4, 5, 0.3).values()) == 43
    large = [Candidate(f"l{i}", bits, 10**8 + i, 10.0 + bits) for i in range(8) for bits in (4, 5)]
    bits = integer_programme(large, 4, 0.5)
    assert sum(bits.values()) == 36 and _average_bits(bits, _sizes(large)) <= 4.5


@pytest.mark.parametrize(
    ("candidates", "kind", "message"),
    [
        ([], RecipeMismatch, "any layer"),
        ([Candidate("a", 8, 1, 9.0)], RecipeMismatch, "not measured at 4 bits: a"),
        ([Candidate("a", 4, 1, 9.0)] * 2, RecipeMismatch, "a is given twice at 4 bits"),
        ([Candidate("a", 4, 1, math.nan)], QuantError, "SQNR of nan"),
        ([Candidate("a", 4, 1, -INFINITE)], QuantError, "SQNR of -inf"),
        ([Candidate("a", 4, 0, 9.0)], QuantError, "0 weights"),
        ([Candidate("a", 4, 1, 9.0), Candidate("a", 8, 2, 9.0)], QuantError, "not as before"),
    ],
)
def test_measurements_that_cannot_be_are_refused(
    candidates: list[Candidate], kind: type[QuantError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        greedy(candidates, 4, 8, 0.5)
    with pytest.raises(kind, match=message):
        integer_programme(candidates, 4, 0.5)


def test_targets_that_cannot_be_are_refused() -> None:
    candidates = [Candidate("a", 4, 1, 9.0)]
    for extra in (-0.1, math.nan, INFINITE):
        with pytest.raises(RecipeMismatch, match="above the base"):
            greedy(candidates, 4, 8, extra)
        with pytest.raises(RecipeMismatch, match="above the base"):
            integer_programme(candidates, 4, extra)
    with pytest.raises(RecipeMismatch, match="to more bits"):
        greedy(candidates, 4, 4, 0.5)
