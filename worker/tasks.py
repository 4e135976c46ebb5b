"""Celery carries wake-up tokens and nothing else, so there is one task: look into the queues."""

from __future__ import annotations

from typing import Any

import structlog
from celery import Celery
from pydantic import ValidationError

from contract.broker import WAKE_UP, WORKER_TIMEOUTS, celery_settings
from contract.jobs import JobMessage
from worker.claims import ClaimLoop

_log = structlog.get_logger(__name__)


def make_celery(redis_url: str, claims: ClaimLoop) -> Celery:
    """The application of one worker process, whose tokens wake the claim loop."""

    def wake_up(token: Any) -> None:
        try:
            JobMessage.model_validate(token)
        except ValidationError:
            _log.warning("malformed wake-up token dropped")
            return
        claims.drain()

    app = Celery("facsimile", set_as_current=False)
    app.conf.update(celery_settings(redis_url, WORKER_TIMEOUTS))
    app.task(name=WAKE_UP)(wake_up)
    return app


def consume(app: Celery, name: str, queues: tuple[str, ...]) -> int:
    """Consume the tokens of these queues until told to stop; answers the exit status. One thread runs one job at a
    time; gossip, mingle and heartbeat would only hold more connections that can go half-open."""
    consumer = app.Worker(
        hostname=f"facsimile@{name}",
        queues=list(queues),
        pool="threads",
        concurrency=1,
        loglevel="INFO",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    consumer.start()
    return int(consumer.exitcode or 0)
