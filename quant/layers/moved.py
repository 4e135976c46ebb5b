"""Modules whose tensors move between devices and keep their dtypes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from torch import Tensor, nn


class Moved(nn.Module):
    """A module that `.to(device)` moves and `.half()` leaves as it is: a cast scale or table is another one, and could
    not be told from a damaged one when it is saved."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        kept = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, before in kept.items():
            after = self._buffers[name]
            if before is not None and after is not None and after.dtype != before.dtype:
                self._buffers[name] = before.to(after.device)
        return self
