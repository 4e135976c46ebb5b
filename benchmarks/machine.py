"""The machine that a figure was measured on, and turns on it."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8")


def machine(threads: int) -> dict[str, Any]:
    """Processor, those of its flags that integer and bfloat16 kernels use, memory in GiB, and the threads used."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    present = set(facts.get("flags", "").split())
    return {
        "processor": facts.get("model name", "unknown"),
        "family_model": f"{facts.get('cpu family', '?')}/{facts.get('model', '?')}",
        "cores": sum(line.startswith("processor") for line in lines),
        "flags": [flag for flag in FLAGS if flag in present],
        "memory_gib": round(_memory("MemTotal") / 2**30, 1),
        "threads": threads,
    }


def available_bytes() -> int:
    """Memory that new processes can have."""
    return _memory("MemAvailable")


def today() -> str:
    """The date, UTC, as in every result."""
    return datetime.now(UTC).date().isoformat()


@contextmanager
def turn(lock: Path | None) -> Iterator[None]:
    """Holds an exclusive lock on a file, so that measurements on one machine take turns; does nothing without one."""
    if lock is None:
        yield
        return
    with lock.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(stream, fcntl.LOCK_UN)


def _memory(field: str) -> int:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
