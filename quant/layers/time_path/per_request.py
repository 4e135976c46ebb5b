"""The time path once a request: rows for all of its timesteps together, or where those are large step by step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from quant.errors import TimestepError
from quant.layers.calls import Arguments, Clock, timestep
from quant.layers.straight_through import is_trained
from quant.layers.time_path.delta import Delta
from quant.layers.time_path.path import Request, TimePath, in_batch, looked_up
from quant.layers.time_path.schedule import Schedule
from quant.layers.timesteps import PerThread

HELD_BYTES = 256 * 2**20
"""Rows of all timesteps are made at once where they take no more than this."""


class RequestSchedule(Schedule):
    """A schedule whose rows hold for one request: for T timesteps times the B pictures of its conditioning.

    Every thread has its own. They are kept until conditioning of other values, another dtype or another device comes;
    whoever changes the layers' weights after a call calls `forget`."""

    def __init__(self, timesteps: Sequence[float], path: TimePath, width: int) -> None:
        """`width`: values in a row of all projections together."""
        super().__init__(timesteps)
        self._path, self._width = path, width
        self._place = PerThread[int | Tensor](0)
        self._made_for: PerThread[dict[str, Tensor]] = PerThread({})

    @property
    def place(self) -> int | Tensor:
        """Where among the rows that were made those of the call are that runs."""
        return self._place.get()

    def forget(self) -> None:
        """Has the rows made anew at the next call, in every thread."""
        self._made_for = PerThread({})

    def prepare(self, denoiser: nn.Module, times: Tensor, conditioning: Mapping[str, Tensor]) -> None:
        """Makes the rows of a batch [B] that does not pass through the whole denoiser."""
        self.select(times)
        with torch.no_grad():
            self._make_for_batch(denoiser, self._path.gather(conditioning))
        self.forget()

    def follows(self, denoiser: nn.Module, arguments: Arguments) -> None:
        """Before a call: makes the rows unless they are there."""
        super().follows(denoiser, arguments)
        request = self._path.gather(arguments)
        if is_trained(denoiser, *request.values()):  # rows with a gradient hold for one backward pass
            self._made_for.set({})
            self._make_for_batch(denoiser, request)
            return
        by_step = isinstance(self.current, Tensor) or self._too_large(denoiser, request)
        needed = {"weight": _weight(denoiser, self._path).new_empty(0), **request}
        if by_step:
            needed["step"] = torch.as_tensor(self.current)
        self._place.set(0 if by_step else self.current)
        # Rows of another thread are not taken over: it may be about to make others.
        if _equal(needed, self._made_for.own() or {}):
            return
        self._made_for.set({})
        with torch.no_grad():
            if by_step:
                self._make_for_batch(denoiser, request)
            else:
                self._make(denoiser, *in_batch(self.timesteps, request, needed["weight"]), len(self))
        self._made_for.set({name: tensor.clone() for name, tensor in needed.items()})

    def _make_for_batch(self, denoiser: nn.Module, request: Request) -> None:
        """Rows of the timesteps that are selected, one for each picture."""
        current, device = self.current, _weight(denoiser, self._path).device
        rows = current.tolist() if isinstance(current, Tensor) else [current]
        times = torch.tensor([self.timesteps[row] for row in rows], dtype=torch.float32, device=device)
        pictures = max((len(tensor) for tensor in request.values()), default=len(times))
        self._make(denoiser, times.expand(pictures) if len(times) == 1 else times, request, 1)
        self._place.set(0)

    def _make(self, denoiser: nn.Module, timesteps: Tensor, request: Request, steps: int) -> None:
        for name, x in self._path.inputs(denoiser, timesteps, request).items():
            projection: Any = denoiser.get_submodule(name)
            projection.made.set(projection.compute(x).unflatten(0, (steps, -1)))

    def _too_large(self, denoiser: nn.Module, request: Request) -> bool:
        pictures = max((len(tensor) for tensor in request.values()), default=1)
        return len(self) * pictures * self._width * _weight(denoiser, self._path).element_size() > HELD_BYTES


class Projection(nn.Module, ABC):
    """A projection of the time path that is looked up, whatever its weight is made of."""

    schedule: RequestSchedule
    made: PerThread[Tensor | None]

    def look_up(self, schedule: RequestSchedule) -> None:
        """From now on, in rows of that schedule, which are made at the next call."""
        self.schedule, self.made = schedule, PerThread(None)
        schedule.forget()

    @abstractmethod
    def compute(self, x: Tensor) -> Tensor:
        """The layer itself: [M, E] to [M, C]."""

    def _load_from_state_dict(self, *arguments: Any) -> None:
        if "schedule" in self.__dict__:
            self.schedule.forget()
        super()._load_from_state_dict(*arguments)

    def __getstate__(self) -> dict[str, Any]:
        """A copy has the rows without their gradient, which cannot be copied."""
        if "made" not in self.__dict__:
            return self.__dict__
        rows = self.made.get()
        return self.__dict__ | {"made": PerThread(None if rows is None else rows.detach())}

    def forward(self, x: Tensor) -> Tensor:
        """[B, C] in the dtype of `x` [B, E], whose values play no part. Raises TimestepError before the first call of
        the denoiser."""
        rows = self.made.get()
        if rows is None:
            raise TimestepError("the denoiser as a whole must be called first: it makes the rows of this projection")
        out = looked_up(rows, self.schedule.place, x)
        delta = self._modules.get("delta")
        if isinstance(delta, Delta):
            out = out + looked_up(delta.table[:, None], self.schedule.current, x)
        return out


class RequestProjection(Projection, nn.Linear):
    """One in floating point; its weights keep their names, so that checkpoints stay the same."""

    def compute(self, x: Tensor) -> Tensor:
        """The layer itself: [M, E] to [M, C]."""
        return nn.Linear.forward(self, x)


def per_request(denoiser: nn.Module, path: TimePath, timesteps: Sequence[float], clock: Clock = timestep) -> Schedule:
    """Has the projections of a floating-point denoiser looked up, in place: when a call comes with conditioning other
    than the last one's, all T x B rows are computed, one product per projection. Names and tensors stay, and embedders
    go on computing what nobody reads: they are small.

    Raises RecipeMismatch where the time path is quantized or replaced already."""
    projections: list[Any] = [denoiser.get_submodule(name) for name in path.projections]
    if not all(isinstance(projection, Projection) for projection in projections):
        path.refuse_touched(denoiser)
    schedule = RequestSchedule(timesteps, path, sum(projection.out_features for projection in projections))
    for projection in projections:
        if not isinstance(projection, Projection):
            projection.__class__ = RequestProjection
        projection.look_up(schedule)
    schedule.follow(denoiser, clock)
    return schedule


def _weight(denoiser: nn.Module, path: TimePath) -> Tensor:
    """A tensor like those that the rows are made with."""
    return next(denoiser.get_submodule(path.embedders[0]).parameters())


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        (a.device, a.dtype) == (b.device, b.dtype) and torch.equal(a, b)
        for a, b in ((tensor, other[name]) for name, tensor in one.items())
    )
