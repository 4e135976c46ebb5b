"""The grid of all quantization, against exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.tensor.affine import from_codes, grid, signed_top, to_codes, unsigned_top

ends = st.floats(-1e6, 1e6, width=32)
widths = st.integers(2, 8)


@settings(max_examples=300, deadline=None)
@given(ends, ends, widths)
def test_a_grid_holds_zero_and_reaches_both_ends_to_half_a_step(a: float, b: float, bits: int) -> None:
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    scale, zero_point = grid(min(a, b), max(a, b), bits)
    step, top = Fraction(scale), 2**bits - 1
    if high - low < 1e-5:  # as narrow as a grid is at least
        high = low + float(top * step)
    assert scale > 0.0 and float(np.float32(scale)) == scale and 0 <= zero_point <= top
    assert abs(-zero_point * step - Fraction(low)) <= step * Fraction(101, 200) + Fraction(low) / -(10**6)
    assert abs((top - zero_point) * step - Fraction(high)) <= step * Fraction(101, 200) + Fraction(high) / 10**6


@given(st.lists(st.integers(-40, 40), min_size=1, max_size=20), widths, st.integers(0, 3))
def test_ties_go_to_even_and_what_is_outside_becomes_the_end(halves: list[int], bits: int, zero_point: int) -> None:
    steps = torch.tensor(halves) / 2.0
    wanted = [min(max(round(Fraction(h, 2)) + zero_point, 0), unsigned_top(bits)) for h in halves]
    assert to_codes(steps.clone(), 0, unsigned_top(bits), zero_point).tolist() == wanted
    values = from_codes(torch.tensor(wanted).float(), 0.25, zero_point)
    assert values.tolist() == [(code - zero_point) / 4 for code in wanted]


def test_the_largest_codes() -> None:
    assert [signed_top(bits) for bits in (2, 4, 8)] == [1, 7, 127]
    assert [unsigned_top(bits) for bits in (2, 4, 8, 16)] == [3, 15, 255, 65535]
