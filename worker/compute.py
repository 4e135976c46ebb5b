"""The one thread of a worker that touches torch, from loading the first model on.

Every thread that runs an operator of torch gets an OpenMP pool of its own. With more pool threads than processors
libgomp no longer spins between operators, and each of them waits for a wake-up: a picture took 2.7 times as long when
the main thread had warmed the models up and another one drew with them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import structlog

LOWEST = 19
"""The nice value of threads that yield to others."""

_SESSION = Path("/proc/self/autogroup")

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


def yield_session() -> None:
    """Lowest priority for the whole session that this process leads: where Linux groups processes by session, nice
    values count inside of a session only, and the session has one of its own. In a session that another process leads,
    such as a shell's, nothing changes."""
    try:
        if os.getsid(0) == os.getpid() and _SESSION.exists():
            _SESSION.write_text(str(LOWEST), encoding="ascii")
    except (AttributeError, OSError) as error:
        _log.warning("calibrations do not yield to pictures", error=str(error))


def _yield_to_others() -> None:
    """Lowest priority for this thread, and for those that it will start. Not the idle class: a thread of it that holds
    the interpreter's lock would keep the lease and the heartbeat waiting while pictures take all processors."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)
    except (AttributeError, OSError) as error:
        _log.warning("calibrations do not yield to pictures", error=str(error))
