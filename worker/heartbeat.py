"""The heartbeat: a thread that announces the worker every few seconds, whatever its jobs do."""

from __future__ import annotations

import threading

import structlog

from contract.announcements import announce
from contract.errors import StoreUnavailable
from worker.runtime import Runtime

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
        while True:
            try:
                self._runtime.store.run(announce(self._runtime.announcement()))
            except StoreUnavailable as error:
                _log.warning("not announced", error=str(error))
            if self._stopped.wait(self._runtime.settings.heartbeat_seconds):
                return
