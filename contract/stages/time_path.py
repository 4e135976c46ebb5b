"""`time_path`: what becomes of the layers that the timestep passes through."""

from __future__ import annotations

from typing import Literal

from contract.stages.option import Iterations, Option, Rate, Weighting


class Keep(Option):
    """The time layers are layers like any other."""

    kind: Literal["keep"] = "keep"


class Tiar(Option):
    """Their rounding is optimized together against the temporal features (TFMQ-DM, arXiv 2311.16503)."""

    kind: Literal["tiar"] = "tiar"
    iterations: Iterations = 500
    learning_rate: Rate = 5e-2
    regularization: Weighting = 0.01


class Precalculate(Option):
    """Their outputs at the sampler's steps are stored and the layers deleted (arXiv 2412.06661)."""

    kind: Literal["precalculate"] = "precalculate"


class PerRequest(Option):
    """They stay in floating point and run once a request, for all steps together."""

    kind: Literal["per_request"] = "per_request"


TimePath = Keep | Tiar | Precalculate | PerRequest
