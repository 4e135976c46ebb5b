"""The arguments of a denoiser's call, by name, and the time it is at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from inspect import Signature, signature
from typing import Any

from torch import Tensor, nn

Arguments = Mapping[str, Any]
"""A call's arguments by name; those that were left out are not there."""

Clock = Callable[[Arguments], Tensor | float]
"""The scheduler's time of a call: a number, or a tensor of 0 or 1 dimensions."""


def bound(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
    """The arguments of a call of `module`, as its `forward` names them."""
    kind: Any = type(module)
    return _signature(kind).bind(*args, **kwargs).arguments


def timestep(arguments: Arguments) -> Tensor | float:
    """The clock of denoisers that are given the scheduler's own timestep."""
    time: Tensor | float = arguments["timestep"]
    return time


@cache
def _signature(kind: Any) -> Signature:
    of_function = signature(kind.forward)
    return of_function.replace(parameters=list(of_function.parameters.values())[1:])  # without the module itself
