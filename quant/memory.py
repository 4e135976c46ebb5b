"""Memory that the C library keeps after large tensors have gone."""

from __future__ import annotations

import ctypes
from typing import Any

from torch import nn


def trim() -> None:
    """Gives freed memory back to the system, where the C library can (glibc)."""
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release is not None:
        release(0)


class TrimAfterFirstCall:
    """A hook that trims once: in its first call a denoiser moves its weights into the layouts of the kernels."""

    def __init__(self, denoiser: nn.Module) -> None:
        self._handle = denoiser.register_forward_hook(self)

    def __call__(self, denoiser: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        """Trims, and is not called again."""
        self._handle.remove()
        trim()
