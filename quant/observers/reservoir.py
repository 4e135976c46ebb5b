"""A uniform sample of values that come in batches, without replacement."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_HYPERGEOMETRIC_LIMIT = 10**9


class Reservoir:
    """Holds `capacity` of all values that have come, or all of them while they are fewer; memory is as many floats. The
    same batches in the same order with the same seed give the same sample. `drawn` counts the values that were taken of
    batches so far: the cost of a late batch does not grow with its size."""

    def __init__(self, capacity: int, seed: int = 0) -> None:
        self.capacity, self.seen, self.drawn = capacity, 0, 0
        self._random = np.random.default_rng(seed)
        self._sample = torch.empty(0)

    @property
    def sample(self) -> Tensor:
        """The values remembered, float32 [min(capacity, seen)] on the CPU."""
        return self._sample.clone()

    def add(self, x: Tensor) -> None:
        """Takes the values of `x`, of any shape and floating dtype, into account."""
        room = min(self.capacity - len(self._sample), x.numel())
        full = len(self._sample) + x.numel() > self.capacity
        replaced = newcomers(self._random, self.seen, x.numel(), self.capacity) if full else room
        values = self._draw(x.detach(), replaced)
        leaving = self._random.choice(len(self._sample), replaced - room, replace=False, shuffle=False)
        self._sample[torch.from_numpy(leaving)] = values[room:]
        self._sample = torch.cat([self._sample, values[:room]]) if room else self._sample
        self.seen += x.numel()
        self.drawn += replaced

    def _draw(self, x: Tensor, count: int) -> Tensor:
        """`count` values of `x` at random. Indexed by coordinates: flattening would copy a channels-last x."""
        positions = torch.from_numpy(self._random.choice(x.numel(), count, replace=False, shuffle=False)).to(x.device)
        return x[torch.unravel_index(positions, x.shape)].float().cpu()


def newcomers(random: np.random.Generator, seen: int, count: int, capacity: int) -> int:
    """How many of a uniform sample of `capacity` values, once `count` more have come after `seen`, are among these."""
    if max(seen, count) < _HYPERGEOMETRIC_LIMIT:
        return int(random.hypergeometric(count, seen, capacity))
    # NumPy draws no larger ones. With so many values, drawing with replacement is the same for all that matters.
    drawn = int(random.binomial(capacity, count / (count + seen)))
    return min(max(drawn, capacity - seen), count)
