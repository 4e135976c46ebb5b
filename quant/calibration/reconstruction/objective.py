"""What the reconstruction of a unit lowers, and how."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Objective:
    """How a unit is reconstructed. `learning_rate` is of the rounding (0: the codes stay), `scale_learning_rate` of the
    activation scales (0: they stay); `regularization` pushes the rounding to 0 or 1 after the share `warmup` of the
    iterations; `gamma` weighs the errors of the layers inside (FBR, arXiv 2401.04585); `drop` is QDrop's probability,
    of floating-point inputs and of floating-point activations alike; `power` is the loss's exponent."""

    iterations: int
    batch: int
    learning_rate: float = 0.0
    scale_learning_rate: float = 0.0
    regularization: float = 0.0
    warmup: float = 0.2
    gamma: float = 0.0
    drop: float = 0.0
    power: float = 2.0


def error(output: Tensor, target: Tensor, power: float = 2.0) -> Tensor:
    """Mean |output - target|^power over all elements, times the channels: the same for every layout of a tensor."""
    channels = target.shape[1] if target.ndim == 4 else target.shape[-1]
    return (output.float() - target).abs().pow(power).mean() * channels
