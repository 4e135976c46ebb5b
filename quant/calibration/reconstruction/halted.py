"""Forward passes that halt at the unit which is reconstructed next, and go on from there when it is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from greenlet import GreenletExit, getcurrent, greenlet
from torch import Tensor, nn

from quant.calibration.reconstruction.units import Arguments, joined, outputs_of


@dataclass(frozen=True)
class Call:
    """One batch's call of a denoiser. `select` tells tables the batch's timesteps; it precedes all that is run."""

    run: Callable[[], Any]
    select: Callable[[], None]


class Passes:
    """All calibration samples on their way through a denoiser, batch after batch.

    So that no unit before is run again, the first `halted` batches stay where they are, with the activations that are
    still needed; the others start anew for every unit. What a unit is given is the same in both cases."""

    def __init__(self, denoiser: nn.Module, units: Sequence[str], calls: Sequence[Call], halted: int) -> None:
        self._batches = [_Batch(call, stays=number < halted) for number, call in enumerate(calls)]
        self._stack = ExitStack()
        for name in units:
            module = denoiser.get_submodule(name)
            self._stack.callback(module.register_forward_pre_hook(_before(name), with_kwargs=True).remove)
            self._stack.callback(module.register_forward_hook(_after(name)).remove)

    def inputs(self, unit: str) -> Arguments:
        """The arguments of the module `unit`, float32, over all samples. Units must be asked for in running order."""
        return joined([batch.reach(unit, after=False)[:2] for batch in self._batches])

    def inputs_and_outputs(self, unit: str) -> tuple[Arguments, tuple[Tensor, ...]]:
        """The arguments of the module `unit` and its outputs, float32, over all samples."""
        found = [batch.reach(unit, after=True) for batch in self._batches]
        outputs = zip(*(outputs_of(output) for *_, output in found), strict=True)
        return joined([arguments[:2] for arguments in found]), tuple(torch.cat(parts) for parts in outputs)

    def close(self) -> None:
        """Ends all passes."""
        for batch in self._batches:
            batch.end()
        self._stack.close()


Reached = tuple[tuple[Any, ...], dict[str, Any], Any]
"""What a unit was called with, and its output, or None where the pass halts before it."""


class _Batch:
    """The pass of one batch, in a greenlet of its own from the first unit that is asked for on."""

    def __init__(self, call: Call, *, stays: bool) -> None:
        self._call, self._stays = call, stays
        self._pass: _Pass | None = None

    def reach(self, unit: str, *, after: bool) -> Reached:
        """Goes on until the unit is reached, or has been passed."""
        if self._pass is None:
            self._pass = _Pass(torch.no_grad()(self._call.run))
        self._call.select()
        found = self._pass.go_on(unit, after)
        if not self._stays:
            self.end()
        return found

    def end(self) -> None:
        if self._pass is not None:
            self._pass.end()
            self._pass = None


class _Pass(greenlet):
    """A forward pass that hooks halt. Modes of torch (autocast, gradients) belong to a thread, not to a greenlet: the
    pass keeps its own, and who waits for it keeps theirs."""

    unit, after = "", False
    arguments: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def go_on(self, unit: str, after: bool) -> Reached:
        self.unit, self.after, self._asker = unit, after, getcurrent()
        gradients = torch.is_grad_enabled()
        found = self.switch()
        torch.set_grad_enabled(gradients)
        if self.dead:
            raise LookupError(f"{unit} is not reached any more")
        return found  # type: ignore[no-any-return]

    def end(self) -> None:
        gradients = torch.is_grad_enabled()
        self.throw(GreenletExit)
        torch.set_grad_enabled(gradients)

    def halt(self, reached: Reached) -> None:
        """Called inside of the pass: the rest waits until somebody asks for another unit."""
        with torch.enable_grad(), torch.autocast("cpu", enabled=False):
            self._asker.switch(reached)


def _before(name: str) -> Callable[..., None]:
    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        running = getcurrent()
        if isinstance(running, _Pass) and running.unit == name:
            running.arguments = args, kwargs
            if not running.after:
                running.halt((args, kwargs, None))

    return before


def _after(name: str) -> Callable[..., None]:
    def after(_: nn.Module, __: Any, output: Tensor) -> None:
        running = getcurrent()
        if isinstance(running, _Pass) and running.unit == name and running.after:
            running.halt((*running.arguments, output))

    return after
