"""Sends wake-up tokens through Celery, beside the request: a token that is lost costs seconds, never a job."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import structlog
from celery import Celery

from contract.broker import GATEWAY_TIMEOUTS, WAKE_UP, celery_settings
from contract.jobs import JobMessage

_THREADS = 4
_MAX_PENDING = 64
"""Tokens that may wait for a slow broker; more are dropped, because the reaper sends them again."""

_log = structlog.get_logger(__name__)


class TokenSender:
    """Publishes without ever blocking the caller or raising."""

    def __init__(self, redis_url: str) -> None:
        self._celery = Celery("facsimile", set_as_current=False)
        self._celery.conf.update(celery_settings(redis_url, GATEWAY_TIMEOUTS))
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="token")
        self._free = threading.BoundedSemaphore(_MAX_PENDING)

    def send(self, message: JobMessage) -> None:
        """Publish a token soon, or drop it."""
        if self._free.acquire(blocking=False):
            self._pool.submit(self._publish, message)

    def close(self) -> None:
        """Give up what was not sent."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _publish(self, message: JobMessage) -> None:
        try:
            self._celery.send_task(WAKE_UP, args=[message.model_dump()], queue=message.queue, retry=False)
        except Exception as error:  # kombu, redis and the socket each have their own
            _log.warning("token not sent", queue=message.queue, error=type(error).__name__)
        finally:
            self._free.release()
