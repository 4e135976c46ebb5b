"""`rounding`: whether every weight is rounded up or down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from contract.stages.option import (
    Batch,
    Fraction,
    Iterations,
    Option,
    Rate,
    Setting,
    Weighting,
    needs_ranges,
    needs_shared_ranges,
)


class Nearest(Option):
    """To the nearest level."""

    kind: Literal["nearest"] = "nearest"

    @property
    def sets_ranges(self) -> bool:
        """Whether the ranges of activations come with the rounding."""
        return False


class AdaRound(Option):
    """Up or down, by the error of one layer's (`adaround`, arXiv 2004.10568) or one block's output (`brecq`, arXiv
    2102.05426). Units read inputs of the quantized prefix, or (`inputs = "reference"`) of the reference."""

    kind: Literal["adaround", "brecq"]
    iterations: Iterations = 400
    batch: Batch = 32
    learning_rate: Rate = 2e-1
    regularization: Weighting = 0.01
    warmup: Fraction = 0.2
    inputs: Literal["quantized", "reference"] = "quantized"
    drop: Fraction = 0.0

    @property
    def sets_ranges(self) -> bool:
        """As `Nearest.sets_ranges`."""
        return False

    def faults(self, setting: Setting) -> Iterator[str]:
        yield from needs_ranges(setting)


class FineGrained(Option):
    """Block reconstruction whose loss holds the errors of the layers inside, weighted `gamma`, with QDrop and with the
    activation scales learned along (EDA-DM's FBR, arXiv 2401.04585)."""

    kind: Literal["fbr"] = "fbr"
    iterations: Iterations = 400
    batch: Batch = 32
    learning_rate: Rate = 2e-1
    scale_learning_rate: Rate = 1e-3
    gamma: Weighting = 0.8
    drop: Fraction = 0.5
    regularization: Weighting = 0.0
    warmup: Fraction = 0.2
    learn_ranges: bool = True

    @property
    def sets_ranges(self) -> bool:
        """As `Nearest.sets_ranges`."""
        return self.learn_ranges

    def faults(self, setting: Setting) -> Iterator[str]:
        yield from needs_ranges(setting)
        if self.learn_ranges:
            yield from needs_shared_ranges(setting)


Rounding = Nearest | AdaRound | FineGrained
