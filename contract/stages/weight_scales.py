"""`weight_scales`: the step of every output channel of every weight."""

from __future__ import annotations

from typing import Literal

from contract.stages.option import Option


class WeightScales(Option):
    """The step of every output channel: from its largest weight, or the one with the least error to the power 2.4."""

    kind: Literal["minmax", "mse"] = "minmax"
