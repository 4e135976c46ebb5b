"""Seeds of pictures. Light, so that the command line can name their limits before anything heavy is imported."""

from __future__ import annotations

from contract.sampling import SEED_RANGE

SEEDS = SEED_RANGE
"""Seeds are 0 to this, exclusive; picture i of a request has seed (seed + i) modulo this."""

EVALUATION_SEED = 2_000_000
"""Seed of the first picture of every set, far from those of calibration and of the cards' reports."""
