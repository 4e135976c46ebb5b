"""The one thread of a worker that touches torch, from loading the first model on.

Every thread that runs an operator of torch gets an OpenMP pool of its own. With more pool threads than processors
libgomp no longer spins between operators, and each of them waits for a wake-up: a picture took 2.7 times as long when
the main thread had warmed the models up and another one drew with them."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog

Answer = TypeVar("Answer")
_log = structlog.get_logger(__name__)


class ComputeThread:
    """Runs calls one after another in one thread. In the background it takes only what other processes leave of the
    processors; so do the threads of torch that it starts, and no other thread of the process."""

    def __init__(self, *, background: bool = False) -> None:
        self._pool = ThreadPoolExecutor(
            1, thread_name_prefix="compute", initializer=_yield_to_others if background else None
        )

    def run(self, call: Callable[[], Answer]) -> Answer:
        """What the call answers, or raises. Waits for the calls before it. The thread itself must not call this."""
        return self._pool.submit(call).result()


def _yield_to_others() -> None:
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # of this thread, and of those that it will start
    except (AttributeError, OSError) as error:
        _log.warning("calibrations do not yield to pictures", error=str(error))
