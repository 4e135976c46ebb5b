"""The heartbeat: a thread that announces the worker every few seconds, whatever its jobs do. A worker that cannot make
itself heard for long ends itself, and is started again."""

from __future__ import annotations

import os
import threading
import time

import structlog

from contract.announcements import announce
from contract.errors import StoreUnavailable
from worker.runtime import Runtime

EXIT_UNHEARD = 76
"""Exit status of a worker that could not announce itself for `FACSIMILE_UNHEARD_SECONDS`."""

_log = structlog.get_logger(__name__)


class Heartbeat:
    """Announces once at the start, then regularly until it is stopped."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to announce."""
        self._thread.start()

    def stop(self) -> None:
        """Fall silent."""
        self._stopped.set()
        self._thread.join()

    def _beat(self) -> None:
        heard = time.monotonic()
        while True:
            if self._announced():
                heard = time.monotonic()
            elif time.monotonic() - heard > self._runtime.settings.unheard_seconds:
                _log.critical("nobody has heard this worker for long: it ends itself")
                os._exit(EXIT_UNHEARD)
            if self._stopped.wait(self._runtime.settings.heartbeat_seconds):
                return

    def _announced(self) -> bool:
        try:
            self._runtime.store.run(announce(self._runtime.announcement()))
            return True
        except StoreUnavailable as error:
            _log.warning("not announced", error=str(error))
        except Exception:
            _log.exception("not announced")
        return False
