"""The study's model, for tests of the study."""

from __future__ import annotations

from functools import cache

from contract.catalogue import read_models
from contract.places import ROOT
from quant.quantization.resolution import Resolution


@cache
def resolution() -> Resolution:
    """Of the embedded model."""
    return Resolution(read_models(ROOT / "models" / "models.toml")["shapes-sd"])
