"""Where torch's compilers stop: quantized layers choose kernels and rows of tables in Python, at every call."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

from quant.errors import CaptureError

P = ParamSpec("P")
R = TypeVar("R")


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """A function that `torch.compile` leaves as it is, compiling what is around it; it costs nothing otherwise."""
    eager = torch.compiler.disable(function, reason="quantized layers choose their kernels at every call")

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            refuse_capture()
            return eager(*args, **kwargs)
        return function(*args, **kwargs)

    return call


def refuse_capture() -> None:
    """Raises CaptureError while a call is traced or exported: the rows of one timestep would be in the result, for all
    timesteps."""
    if torch.compiler.is_exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        raise CaptureError(
            "a quantized denoiser cannot be traced or exported, since it chooses kernels and rows of tables at every "
            "call: export the reference, or call dequantize() first"
        )
