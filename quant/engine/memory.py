"""The memory of this process: what the C library keeps after large tensors have gone, and the most there ever was."""

from __future__ import annotations

import ctypes
import resource
from pathlib import Path
from typing import Any

from torch import nn


def trim() -> None:
    """Gives freed memory back to the system, where the C library can (glibc)."""
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release is not None:
        release(0)


def available_bytes() -> int | None:
    """Memory that a new allocation can have: what the system has left, and no more than this control group may still
    take. None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        left = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    try:
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        return min(left, limit - int((group / "memory.current").read_text(encoding="ascii")))
    except (OSError, ValueError):  # no control group, or one without a limit
        return left


class PeakMemory:
    """The most bytes that the process had resident since this object was made; where the system cannot start its mark
    anew (it can on Linux), since the process began."""

    def __init__(self) -> None:
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return

    @property
    def resident_bytes(self) -> int:
        """The mark now."""
        try:
            status = Path("/proc/self/status").read_text(encoding="ascii")
        except OSError:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


class TrimAfterFirstCall:
    """A hook that trims once: in its first call a denoiser moves its weights into the layouts of the kernels."""

    def __init__(self, denoiser: nn.Module) -> None:
        self._handle = denoiser.register_forward_hook(self)

    def __call__(self, denoiser: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        """Trims, and is not called again."""
        self._handle.remove()
        trim()
