"""`bits`: how many bits the weights of every layer have."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contract.stages.option import Option


class UniformBits(Option):
    """Every layer has the recipe's weight bits, but for its own exceptions."""

    kind: Literal["uniform"] = "uniform"


class SensitiveBits(Option):
    """The most sensitive layers get `lifted_bits` while the average stays within `extra_bits` of the recipe's: by
    sensitivity per bit, or by an integer programme (MixDQ, arXiv 2405.17873)."""

    kind: Literal["greedy", "integer_programme"]
    lifted_bits: int = Field(default=8, ge=2, le=8)
    extra_bits: float = Field(default=0.25, gt=0.0, le=6.0, allow_inf_nan=False)
    prompts: int = Field(default=4, ge=1, le=64)
    steps: int = Field(default=5, ge=1, le=1000)


Bits = UniformBits | SensitiveBits
