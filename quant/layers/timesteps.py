"""Groups of timesteps: which row of the layers' tables a denoiser's call uses."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from quant.errors import TimestepError
from quant.layers.calls import Clock, bound, timestep
from quant.layers.capture import refuse_capture

T = TypeVar("T")


class PerThread(Generic[T]):
    """A value that every thread sets for itself, so that two that call one denoiser do not disturb each other. A thread
    that has set none sees the one that was set last: backward passes may run in threads of torch's own.

    A copy, or what comes out of a pickle, starts with the value that the copying thread sees."""

    def __init__(self, value: T) -> None:
        self._own, self._latest = threading.local(), value

    def get(self) -> T:
        """The calling thread's value."""
        found: T = getattr(self._own, "value", self._latest)
        return found

    def own(self) -> T | None:
        """What the calling thread has set, if it has."""
        found: T | None = getattr(self._own, "value", None)
        return found

    def set(self, value: T) -> None:
        """Sets it for the calling thread."""
        self._own.value = self._latest = value

    def __getstate__(self) -> dict[str, T]:
        return {"_latest": self.get()}

    def __setstate__(self, state: dict[str, T]) -> None:
        self.__init__(state["_latest"])  # type: ignore[misc]


class TimestepGroups:
    """One representative timestep per group; a call belongs to the group whose timestep is nearest to its own.

    All layers of a denoiser share one object and read `current`, so switching costs one assignment a step. One group
    without a timestep stands for all of them."""

    def __init__(self, timesteps: Sequence[float] = ()) -> None:
        if any(not math.isfinite(t) or t < 0 for t in timesteps) or len(set(timesteps)) != len(timesteps):
            raise TimestepError("the timesteps of a table are different, finite and not negative")
        self.timesteps = tuple(float(t) for t in timesteps)
        self._current = PerThread(0)
        self._clock: Clock = timestep

    def __len__(self) -> int:
        """How many groups there are."""
        return max(len(self.timesteps), 1)

    @property
    def current(self) -> int:
        """The group that the calling thread selected."""
        return self._current.get()

    @current.setter
    def current(self, group: int) -> None:
        self._current.set(group)

    def nearest(self, time: float) -> int:
        """The group of a timestep; of two equally near the first. Raises TimestepError for one that is not a number or
        negative."""
        if not math.isfinite(time) or time < 0:
            raise TimestepError(f"timestep {time} is not a number from 0 on")
        if not self.timesteps:
            return 0
        return min(range(len(self.timesteps)), key=lambda g: abs(self.timesteps[g] - time))

    def select(self, time: Tensor | float) -> None:
        """Makes the group of a timestep the current one; a tensor holds one timestep, or the same group throughout.

        Raises TimestepError where pictures of one batch are in different groups."""
        if not self.timesteps:
            return
        values = time.flatten().tolist() if isinstance(time, Tensor) else [time]
        groups = {self.nearest(float(value)) for value in set(values)}
        if len(groups) != 1:
            raise TimestepError(f"one batch holds timesteps of {len(groups)} groups: they must be run one by one")
        self.current = groups.pop()

    def follow(self, denoiser: nn.Module, clock: Clock = timestep) -> RemovableHandle:
        """Selects before every call of `denoiser`, by the time that the clock reads from its arguments."""
        self._clock = clock
        # A bound method: a copy of the denoiser then has a hook on the copy of this object.
        return denoiser.register_forward_pre_hook(self._before, with_kwargs=True)

    def _before(self, denoiser: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        refuse_capture()
        self.select(self._clock(bound(denoiser, args, kwargs)))


class SampleGroups(TimestepGroups):
    """As TimestepGroups, for a batch whose samples may be at different timesteps."""

    def __init__(self, timesteps: Sequence[float] = ()) -> None:
        super().__init__(timesteps)
        self._of_samples = torch.zeros(1, dtype=torch.long)

    def select(self, time: Tensor | float) -> None:
        """Takes the group of one timestep, or of one for every sample [B]."""
        values = time.flatten().tolist() if isinstance(time, Tensor) else [time]
        known = {value: self.nearest(float(value)) for value in set(values)}
        self.current = known[values[0]]
        self._of_samples = torch.tensor([known[value] for value in values])

    def rows(self, samples: int) -> Tensor:
        """The group of every one of `samples`, int64 [samples]. Raises TimestepError where the timesteps that were
        selected are neither one nor as many."""
        if len(self._of_samples) not in (1, samples):
            raise TimestepError(f"{len(self._of_samples)} timesteps for {samples} samples")
        return self._of_samples.expand(samples)
