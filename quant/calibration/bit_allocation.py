"""Which layers get more bits, from measurements of what each alone does to the model's output."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor

from quant.errors import QuantError, RecipeMismatch

_LOWEST_SQNR = -300.0
_NOISE_AT_BASE = 1e3
"""In the solver's units. HiGHS stops 1e-6 from the optimum, in absolute numbers."""

_BUDGET = 1e4
"""In the solver's units. HiGHS keeps constraints to 1e-6, in absolute numbers, and is slow when those are billions."""


@dataclass(frozen=True)
class Candidate:
    """One layer at one width: `parameters` is how many weights it has, `sqnr` the signal-to-quantization-noise ratio of
    the model's output, in dB, when this layer has `bits` bits and all others are floats; infinite without any noise."""

    layer: str
    bits: int
    parameters: int
    sqnr: float

    @property
    def noise(self) -> float:
        """The noise-to-signal ratio, linear."""
        return float(10.0 ** (-self.sqnr / 10.0))


def sqnr(reference: Tensor, quantized: Tensor) -> float:
    """10 log10(sum reference^2 / sum (reference - quantized)^2) in dB, of tensors of equal shape; infinite when they
    are equal. Raises QuantError when shapes differ or a value is not finite."""
    if reference.shape != quantized.shape or not reference.numel():
        raise QuantError(f"no SQNR of shapes {tuple(reference.shape)} and {tuple(quantized.shape)}")
    if not (reference.isfinite().all() and quantized.isfinite().all()):
        raise QuantError("no SQNR of outputs that are not finite")
    exact = reference.detach().double()
    signal, noise = exact.square().sum().item(), (exact - quantized.detach().double()).square().sum().item()
    if noise == 0.0:
        return float("inf")
    return 10.0 * math.log10(signal / noise) if signal else float("-inf")


def ranking(candidates: Sequence[Candidate], base: int, lifted: int) -> list[tuple[str, float]]:
    """Layers and the noise that leaves the output per bit spent when they go from `base` to `lifted` bits, the most
    worthwhile first, equals as given. A layer that was not measured at `lifted` bits counts as noiseless there.

    Raises RecipeMismatch unless `lifted` is more than `base`, otherwise as `greedy` does."""
    measured = _by_layer(candidates, base)
    if lifted <= base:
        raise RecipeMismatch(f"layers are lifted from {base} to more bits, not to {lifted}")
    worth = {
        layer: (widths[base].noise - (widths[lifted].noise if lifted in widths else 0.0))
        / (widths[base].parameters * (lifted - base))
        for layer, widths in measured.items()
    }
    return sorted(worth.items(), key=lambda pair: -pair[1])


def greedy(candidates: Sequence[Candidate], base: int, lifted: int, extra: float) -> dict[str, int]:
    """Bits of every layer: `base`, but `lifted` for the first layers of `ranking`, as many as the average width of a
    weight, at most `base` + `extra`, allows. The first layer that does not fit ends it, and so does one that gains
    nothing. Candidates at other widths are not looked at.

    Raises RecipeMismatch for no candidates, the same layer and width twice, a layer not measured at `base` bits, and an
    `extra` that is negative or not finite; QuantError for measurements that cannot be: no weights, different numbers of
    weights in one layer, an SQNR that is NaN or below -300 dB."""
    measured = _by_layer(candidates, base)
    room = _budget(measured, base, extra) - base * _weights(measured)
    bits = dict.fromkeys(measured, base)
    for layer, worth in ranking(candidates, base, lifted):
        room -= (lifted - base) * measured[layer][base].parameters
        if room < 0 or worth <= 0.0:
            break
        bits[layer] = lifted
    return bits


def integer_programme(candidates: Sequence[Candidate], base: int, extra: float) -> dict[str, int]:
    """Bits of every layer, out of the widths it was measured at, with the least sum of noises of all choices whose
    average width of a weight is at most `base` + `extra`: an integer programme as in MixDQ (arXiv 2405.17873), solved
    by HiGHS to 1e-9 of the noise at `base` bits.

    Raises what `greedy` raises, and QuantError when the solver fails."""
    measured = _by_layer(candidates, base)
    budget = _budget(measured, base, extra)
    at_base = math.fsum(widths[base].noise for widths in measured.values())
    choices = [one for widths in measured.values() for one in _worthwhile(widths, at_base)]
    of_layer = np.array([[float(one.layer == layer) for one in choices] for layer in measured])
    size = np.array([one.bits * one.parameters / budget for one in choices])
    found = milp(
        np.array([_NOISE_AT_BASE * one.noise / at_base if at_base else 0.0 for one in choices]),
        integrality=np.ones(len(choices)),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(of_layer, 1, 1), LinearConstraint(_BUDGET * size, -np.inf, _BUDGET)],
        options={"mip_rel_gap": 0.0},
    )
    if not found.success:
        raise QuantError(f"the integer programme of bit-widths was not solved: {found.message}")
    bits = {one.layer: one.bits for one, taken in zip(choices, found.x, strict=True) if taken > 0.5}
    if sum(width * measured[layer][base].parameters for layer, width in bits.items()) > budget:
        raise QuantError("the integer programme of bit-widths was solved with more bits than there are")
    return bits


def _by_layer(candidates: Sequence[Candidate], base: int) -> dict[str, dict[int, Candidate]]:
    """The candidates by layer and width, checked."""
    measured: dict[str, dict[int, Candidate]] = {}
    for one in candidates:
        widths = measured.setdefault(one.layer, {})
        if one.bits in widths:
            raise RecipeMismatch(f"{one.layer} is given twice at {one.bits} bits")
        if not one.sqnr >= _LOWEST_SQNR:  # false for NaN as well
            raise QuantError(f"{one.layer} at {one.bits} bits has an SQNR of {one.sqnr} dB")
        if one.parameters < 1 or any(other.parameters != one.parameters for other in widths.values()):
            raise QuantError(f"{one.layer} has {one.parameters} weights at {one.bits} bits: none, or not as before")
        widths[one.bits] = one
    missing = [layer for layer, widths in measured.items() if base not in widths]
    if missing or not measured:
        raise RecipeMismatch(f"not measured at {base} bits: {', '.join(missing) or 'any layer'}")
    return measured


def _weights(measured: Mapping[str, Mapping[int, Candidate]]) -> int:
    return sum(next(iter(widths.values())).parameters for widths in measured.values())


def _budget(measured: Mapping[str, Mapping[int, Candidate]], base: int, extra: float) -> int:
    """How many bits all weights may have together."""
    if not 0.0 <= extra < float("inf"):
        raise RecipeMismatch(f"{extra} bits above the base: must be finite and not negative")
    return math.floor((base + Fraction(str(extra))) * _weights(measured))  # as written: 0.3 is three tenths


def _worthwhile(widths: Mapping[int, Candidate], most: float) -> list[Candidate]:
    """The widths that can be in an optimum: less noise than with fewer bits, and not more than all layers at base."""
    kept: list[Candidate] = []
    for one in sorted(widths.values(), key=lambda one: one.bits):
        if one.noise <= most and (not kept or one.noise < kept[-1].noise):
            kept.append(one)
    return kept
