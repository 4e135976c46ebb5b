"""The timesteps that a denoiser may be called with."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from quant.errors import TimestepError
from quant.layers.calls import Arguments, Clock, bound, timestep
from quant.layers.capture import refuse_capture
from quant.layers.timesteps import PerThread

_NAMED = 50


class Schedule:
    """The timesteps that a denoiser may be called with, in sampling order, each stored once.

    `current` is the row of the call that runs: an int, or int64 [B] where one batch holds different timesteps. All
    modules of a denoiser share one object, as they share a TimestepGroups."""

    def __init__(self, timesteps: Sequence[float]) -> None:
        """Raises TimestepError for none at all, and for one that is not a number from 0 on."""
        if not timesteps or any(not math.isfinite(t) or t < 0 for t in timesteps):
            raise TimestepError("a schedule is one timestep or more, all finite and not negative")
        rows: dict[float, float] = {}
        for time in timesteps:
            rows.setdefault(_key(time), float(time))
        self.timesteps = tuple(rows.values())
        self._current = PerThread[int | Tensor](0)
        self._rows = {key: row for row, key in enumerate(rows)}
        self._clock: Clock = timestep

    def __len__(self) -> int:
        """How many different timesteps there are."""
        return len(self.timesteps)

    @property
    def current(self) -> int | Tensor:
        """The row, or rows, that the calling thread selected."""
        return self._current.get()

    @current.setter
    def current(self, rows: int | Tensor) -> None:
        self._current.set(rows)

    def select(self, time: Tensor | float) -> None:
        """Makes the rows of a timestep, a number or a tensor of 0 or 1 dimensions, the current ones.

        Raises TimestepError, naming those allowed, for one outside of the schedule."""
        values = time.flatten().tolist() if isinstance(time, Tensor) else [time]
        rows = [self._row(float(value)) for value in values]
        self.current = rows[0] if len(set(rows)) == 1 else torch.tensor(rows)

    def prepare(self, denoiser: nn.Module, times: Tensor, conditioning: Mapping[str, Tensor]) -> None:
        """Selects for a batch [B] that does not pass through the whole denoiser."""
        self.select(times)

    def follow(self, denoiser: nn.Module, clock: Clock = timestep) -> RemovableHandle:
        """Selects before every call of `denoiser`, by the time that the clock reads from its arguments."""
        self._clock = clock
        # A bound method: a copy of the denoiser then has a hook on the copy of this object.
        return denoiser.register_forward_pre_hook(self._before, with_kwargs=True)

    def follows(self, denoiser: nn.Module, arguments: Arguments) -> None:
        """Before a call of `denoiser` with these arguments."""
        self.select(self._clock(arguments))

    def _before(self, denoiser: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        refuse_capture()
        self.follows(denoiser, bound(denoiser, args, kwargs))

    def _row(self, timestep: float) -> int:
        row = self._rows.get(_key(timestep))
        if row is None:
            allowed = ", ".join(f"{t:.9g}" for t in self.timesteps[:_NAMED])
            more = f" and {len(self) - _NAMED} more" if len(self) > _NAMED else ""
            raise TimestepError(f"timestep {timestep:.9g} is not in the schedule of this denoiser: {allowed}{more}")
        return row


def _key(timestep: float) -> float:
    """What the sinusoid sees of a timestep: float32. So a schedule out of JSON fits a scheduler's tensor."""
    return ctypes.c_float(timestep).value
