"""The one task: a token arrives, so look into the queues."""

from __future__ import annotations

from typing import Any

import structlog
from celery import Celery
from pydantic import ValidationError

from contract.broker import WAKE_UP
from contract.jobs import JobMessage
from worker.claims import ClaimLoop

_log = structlog.get_logger(__name__)


def register_tasks(app: Celery, claims: ClaimLoop) -> None:
    """Let tokens of this application wake the claim loop."""

    @app.task(name=WAKE_UP)
    def wake_up(token: Any) -> None:
        try:
            JobMessage.model_validate(token)
        except ValidationError:
            _log.warning("a token that is none: dropped")
            return
        claims.drain()
