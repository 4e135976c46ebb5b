"""What else ran on the machine while a contender was measured."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
RESOLUTION = 4 / TICKS
"""Seconds of processor time that the kernel's counters cannot tell apart."""


@dataclass(frozen=True)
class Instant:
    """Clock, processor seconds that all processes and the hypervisor have taken, and those that one process has."""

    clock: float
    machine: float
    process: float


def now(pid: int) -> Instant:
    """Reads the kernel's counters, with those of the process `pid`."""
    fields = [int(field) for field in Path("/proc/stat").read_text(encoding="ascii").split("\n")[0].split()[1:9]]
    user, nice, system, _idle, _wait, irq, soft, steal = fields
    own = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    machine = (user + nice + system + irq + soft + steal) / TICKS
    return Instant(time.perf_counter(), machine, (int(own[11]) + int(own[12])) / TICKS)


def disturbance(before: Instant, after: Instant, cores: int | None = None) -> float:
    """Share of the machine's processor time, 0 to 1, that others took between two instants."""
    others = (after.machine - before.machine) - (after.process - before.process)
    capacity = max((after.clock - before.clock) * (cores or os.cpu_count() or 1), RESOLUTION)
    return max(0.0, others - RESOLUTION) / capacity
