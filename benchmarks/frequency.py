"""The clock of one core under an integer load, from the time of a chain of dependent instructions."""

from __future__ import annotations

import time

from numba import njit, uint64

STEPS = 100_000_000
INSTRUCTIONS_PER_STEP = 6
"""Three shifts and three exclusive ors, each one cycle and waiting for the one before."""


@njit(cache=False)
def _xorshift(state: int, steps: int) -> int:
    x = uint64(state)
    for _ in range(steps):
        x ^= x << uint64(13)
        x ^= x >> uint64(7)
        x ^= x << uint64(17)
    return x


def frequency() -> float:
    """Cycles per second: the highest of three trials. With vector or tile instructions a core may run slower."""
    _xorshift(1, 1)
    trials = []
    for _ in range(3):
        started = time.perf_counter()
        _xorshift(88172645463325252, STEPS)
        trials.append(STEPS * INSTRUCTIONS_PER_STEP / (time.perf_counter() - started))
    return max(trials)
