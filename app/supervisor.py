"""Keeps the child processes of the all-in-one service running."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from app.child import Child

REFUSED = 2
"""Exit status of a process that cannot start with the settings that it has."""

_LOOK_SECONDS = 0.5
_LONGEST_PAUSE = 30.0
_HEALTHY_SECONDS = 60.0
"""A child that lived for so long is started again after the shortest pause."""


def worker_child(queues: Sequence[str], redis_url: str, metrics_port: int) -> Child:
    """A worker process for some of `generate`, `calibrate` and `evaluate`; port 0 is no exporter."""
    command = [sys.executable, "-m", "worker"]
    for queue in queues:
        command += ["--queues", queue]
    if metrics_port:
        command += ["--metrics-host", "127.0.0.1", "--metrics-port", str(metrics_port)]
    return Child(f"worker {'+'.join(queues)}", command, env={**os.environ, "FACSIMILE_REDIS_URL": redis_url})


@dataclass
class _Watched:
    child: Child
    own: bool
    since: float
    pause: float = 0.5
    due: float | None = None
    left: bool = False


class Supervisor:
    """While the `with` block runs, starts its children, and starts those that end again, after a pause that doubles
    while they keep ending. One that cannot work with its settings would only end again: it is left, `refused` gets its
    name, and this process is told to stop. Children that ran before are watched too, and left to their owner at the
    end."""

    def __init__(self, children: Sequence[Child], tell: Callable[[str], None], refused: Callable[[str], None]) -> None:
        now = time.monotonic()
        self._watched = [_Watched(child, own=not child.running, since=now) for child in children]
        self._tell = tell
        self._refused = refused
        self._stopped = threading.Event()
        self._looking = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def __enter__(self) -> Self:
        for watched in self._watched:
            if watched.own:
                watched.child.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._looking:
            self._stopped.set()
        stops = [threading.Thread(target=watched.child.stop) for watched in self._watched if watched.own]
        for stop in stops:
            stop.start()
        for stop in stops:
            stop.join()

    def _watch(self) -> None:
        while not self._stopped.wait(_LOOK_SECONDS):
            with self._looking:
                for watched in self._watched:
                    if watched.child.running or watched.left or self._stopped.is_set():
                        continue
                    if watched.child.status == REFUSED:
                        self._leave(watched)
                    else:
                        self._revive(watched, time.monotonic())
        threading.Event().wait()  # a child dies with the thread that started it, not only with the process

    def _leave(self, watched: _Watched) -> None:
        watched.left = True
        self._refused(watched.child.name)
        os.kill(os.getpid(), signal.SIGTERM)

    def _revive(self, watched: _Watched, now: float) -> None:
        child = watched.child
        if watched.due is None:
            watched.pause = 1.0 if now - watched.since > _HEALTHY_SECONDS else min(_LONGEST_PAUSE, watched.pause * 2)
            watched.due = now + watched.pause
            self._tell(f"{child.name} ended with status {child.status}; starting it again in {watched.pause:.0f} s")
        elif now >= watched.due:
            child.start()
            watched.since, watched.due = now, None
