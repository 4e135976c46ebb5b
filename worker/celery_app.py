"""Celery, which carries wake-up tokens and nothing else. Settings with reasons: docs/operations.md."""

from __future__ import annotations

from celery import Celery
from kombu import Queue

from contract.broker import WORKER_TIMEOUTS, celery_settings
from worker.runtime import Runtime


def make_celery(runtime: Runtime) -> Celery:
    """The application of one worker process, which consumes the tokens of its queues."""
    app = Celery("facsimile", set_as_current=False)
    app.conf.update(celery_settings(runtime.settings.redis_url, WORKER_TIMEOUTS))
    app.conf.task_queues = [Queue(name) for name in runtime.queues]
    return app
