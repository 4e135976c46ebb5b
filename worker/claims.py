"""The claim loop: takes jobs from the store one after another until the queues are empty."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from contract.errors import RecordUnreadable, StoreUnavailable
from contract.jobs import JobError, JobRecord
from contract.transitions import Claimant, claim, fail
from worker.compute import ComputeThread
from worker.runtime import Runtime

_log = structlog.get_logger(__name__)


class ClaimLoop:
    """Runs one job at a time, in the compute thread. A token makes it look at once; without any it looks every few
    seconds by itself, because a token can be lost. While it is busy a token's call waits, so that idle workers take the
    other tokens."""

    def __init__(self, runtime: Runtime, execute: Callable[[Runtime, JobRecord], None], compute: ComputeThread) -> None:
        self._runtime = runtime
        self._execute = execute
        self._compute = compute
        self._busy = threading.Lock()
        self._stopped = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="poll", daemon=True)

    def start(self) -> None:
        """Begin to look for jobs without tokens."""
        self._poller.start()

    def stop(self) -> None:
        """Take no further job, and wait for the one that runs."""
        self._stopped.set()
        self._poller.join()

    def drain(self) -> None:
        """Run jobs until the queues are empty."""
        with self._busy:
            self._compute.run(self._drain)

    def _drain(self) -> None:
        while not (self._stopped.is_set() or self._runtime.patience.draining.is_set()):
            try:
                record = self._runtime.store.run(claim(self._runtime.queues, self._runtime.name))
            except StoreUnavailable as error:
                _log.warning("no claim", error=str(error))
                return
            except RecordUnreadable as error:
                self._refuse(error)
                continue
            if record is None:
                return
            self._execute(self._runtime, record)

    def _refuse(self, unreadable: RecordUnreadable) -> None:
        _log.error("job refused", job=unreadable.job, reason=str(unreadable))
        reason = JobError(code=unreadable.code, message=str(unreadable))
        try:
            self._runtime.store.run(fail(Claimant(unreadable.job, unreadable.attempt), reason))
        except StoreUnavailable as error:
            _log.warning("job not refused: its lease will expire", error=str(error))

    def _poll(self) -> None:
        while not self._stopped.wait(self._runtime.settings.poll_seconds):
            if not self._busy.locked():
                try:
                    self.drain()
                    self._compute.run(self._runtime.pipelines.try_again)
                except Exception:
                    _log.exception("no claim")
