"""Rounding that is learned: AdaRound's variables."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SoftRounding(nn.Module):
    """AdaRound's variables (arXiv 2004.10568, section 3.2): a weight becomes floor(w / s) + h(alpha), h in [0, 1]."""

    ZETA, GAMMA = 1.1, -0.1

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        super().__init__()
        steps = weight.detach() / by_channel(scale.detach(), weight)
        self.register_buffer("floor", steps.floor())
        rest = (steps - self.floor).clamp(1e-4, 1.0 - 1e-4)
        self.alpha = nn.Parameter(-torch.log((self.ZETA - self.GAMMA) / (rest - self.GAMMA) - 1.0))

    floor: Tensor

    @property
    def up(self) -> Tensor:
        """h: how far every weight is rounded up, 0 to 1."""
        return (torch.sigmoid(self.alpha) * (self.ZETA - self.GAMMA) + self.GAMMA).clamp(0.0, 1.0)

    def codes(self, top: int) -> Tensor:
        """Soft codes, float32, clipped to [-top, top]."""
        return (self.floor + self.up).clamp(-top, top)

    def hard_codes(self, top: int) -> Tensor:
        """Codes rounded down or up for good."""
        return (self.floor + (self.alpha >= 0).float()).clamp(-top, top)

    def penalty(self, beta: float) -> Tensor:
        """Sum of 1 - |2 h - 1|^beta: 0 when every h is 0 or 1."""
        least = _NOTHING ** (1.0 / beta)  # what is smaller would give denormal powers, which take ten times as long
        return (1.0 - (2.0 * self.up - 1.0).abs().clamp_min(least).pow(beta)).sum()


_NOTHING = 1e-30


def by_channel(values: Tensor, weight: Tensor) -> Tensor:
    """Values [N] in the shape in which they go with a weight [N, ...]."""
    return values.view(-1, *[1] * (weight.ndim - 1))
