"""Names of queues and of the one task, and how both sides talk to the broker. Celery itself is not imported here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

WAKE_UP = "facsimile.wake_up"
"""The task that a token calls: its only argument is a JobMessage as JSON object."""

VISIBILITY_TIMEOUT = 86_400
"""Seconds; one value for every Celery application on the server, because the shortest one wins for all."""


class Line(StrEnum):
    """Where jobs wait, in the words that a worker process is told what to serve."""

    GENERATE = "generate"
    CALIBRATE = "calibrate"
    EVALUATE = "evaluate"

    @property
    def background(self) -> bool:
        """Whether its jobs take hours. They have the longer time limit, and a process that yields to pictures."""
        return self is not Line.GENERATE

    def queue(self, model: str) -> str:
        """The queue of a model's jobs in this line: pictures have one for each model, the background one for all."""
        return self.value if self.background else f"{self.value}.{model}"


@dataclass(frozen=True)
class Timeouts:
    """Seconds after which a broker that does not answer counts as down."""

    read: float
    connect: float


GATEWAY_TIMEOUTS = Timeouts(read=2.0, connect=1.0)
WORKER_TIMEOUTS = Timeouts(read=5.0, connect=3.0)


def broker_url(redis_url: str) -> str:
    """The same server in kombu's words: `unix:///path` is called `redis+socket:///path` there."""
    return redis_url.replace("unix://", "redis+socket://", 1)


def celery_settings(redis_url: str, timeouts: Timeouts) -> dict[str, Any]:
    """The Celery settings that both sides share. A token is acknowledged when it is received: the job record is the
    truth, so nothing needs Celery to deliver it twice, and nothing is stored by Celery."""
    return {
        "broker_url": broker_url(redis_url),
        "broker_transport_options": {
            "visibility_timeout": VISIBILITY_TIMEOUT,
            "socket_timeout": timeouts.read,
            "socket_connect_timeout": timeouts.connect,
            "socket_keepalive": True,
            "health_check_interval": 5,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
        },
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,
        "visibility_timeout": VISIBILITY_TIMEOUT,
        "result_backend": None,
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_acks_late": False,
        "task_publish_retry": False,
        "task_create_missing_queues": True,
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_enable_remote_control": False,
    }
