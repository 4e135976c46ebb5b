"""Peak signal-to-noise ratio between two pictures, in decibels; higher is closer."""

from __future__ import annotations

import math

from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from quant.fidelity.metric import Traits
from quant.fidelity.pair import Pair

TRAITS = Traits(better="higher", identical=math.inf, unit="dB")


def score(pair: Pair, backbone: str = "") -> Tensor:
    """Float32 [N], infinite where two pictures are identical."""
    return peak_signal_noise_ratio(
        pair.variant.values, pair.reference.values, data_range=1.0, reduction="none", dim=(1, 2, 3)
    )
