"""The all-in-one service as a process of its own: real broker, real workers, real HTTP."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx

PATIENCE = float(os.environ.get("TEST_PATIENCE", "240"))
"""Seconds until a poll gives up: far more than a quiet machine needs. A busy one may set TEST_PATIENCE."""

SHORT_TIMES = {
    "FACSIMILE_LEASE_SECONDS": "5",
    "FACSIMILE_REAP_SECONDS": "0.5",
    "FACSIMILE_RESEND_SECONDS": "2",
    "FACSIMILE_POLL_SECONDS": "1",
    "FACSIMILE_DRAIN_SECONDS": "0",
}


def until(found: Callable[[], Any], what: str) -> Any:
    """Polls until something is found, and answers it."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        answer = found()
        if answer:
            return answer
        time.sleep(0.1)
    raise TimeoutError(f"waited {PATIENCE:.0f} s for {what}")


STOP_SECONDS = 28.0
"""A stop that takes longer means that a child did not end by itself, and was killed."""


class Process:
    """A child with its output at hand, always reaped."""

    def __init__(self, arguments: list[str], env: dict[str, str], folder: Path | None = None) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=folder,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self._popen.pid
        self.log: deque[str] = deque(maxlen=20_000)
        self._lines: deque[str] = deque(maxlen=400)
        self._readers = [
            threading.Thread(target=self._read, args=arguments, daemon=True)
            for arguments in ((self._popen.stdout, [self._lines]), (self._popen.stderr, [self._lines, self.log]))
        ]
        for reader in self._readers:
            reader.start()

    @property
    def output(self) -> str:
        return "".join(self._lines)

    def wait(self) -> int:
        status = self._popen.wait(PATIENCE)
        for reader in self._readers:
            reader.join(10)
        return status

    def stop(self) -> int:
        self._popen.terminate()
        try:
            return self.wait()
        finally:
            if self._popen.poll() is None:
                os.killpg(self.pid, signal.SIGKILL)
                self._popen.wait()

    def _read(self, stream: Iterable[str], kept: list[deque[str]]) -> None:
        for line in stream:
            for lines in kept:
                lines.append(line)


class Service:
    """What a user does with the service, and what a fault does to it."""

    def __init__(self, process: Process, data: Path) -> None:
        self.process = process
        self.data = data
        self.url = str(until(self._address, "an address"))
        self.http = httpx.Client(base_url=self.url, timeout=90)
        until(self._ready, "readiness")

    def submit(self, kind: str, **body: Any) -> dict[str, Any]:
        answer = self.http.post(f"/v1/{kind}", json={"model": "tiny", **body})
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    def look(self, job: dict[str, Any]) -> dict[str, Any]:
        return dict(self.http.get(job["links"]["self"]).json())

    def ended(self, job: dict[str, Any]) -> dict[str, Any]:
        """Waits for a terminal state and answers the job."""
        return dict(until(lambda: (seen := self.look(job))["finished_at"] and seen, "the end of a job"))

    def running(self, job: dict[str, Any]) -> dict[str, Any]:
        """Waits until a job has made steps."""

        def stepped() -> dict[str, Any] | None:
            seen = self.look(job)
            assert not seen["finished_at"], seen
            return seen if seen["progress"] and seen["progress"]["step"] > 1 else None

        return dict(until(stepped, "the first steps of a job"))

    def child(self, words: str) -> int:
        """Waits for the child process whose command line holds these words, and answers its id."""
        return int(until(lambda: next(iter(self._children(words)), None), f"a child {words}"))

    def worker(self) -> int:
        """The process id of the worker that makes pictures."""
        return self.child("--queues generate")

    def picture(self, job: dict[str, Any], index: int = 0) -> bytes:
        return self.http.get(job["result"]["images"][index]["url"]).content

    def _children(self, words: str) -> list[int]:
        listed = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        ids = [int(word) for path in listed for word in path.read_text().split()]
        return [pid for pid in ids if words in _command_line(pid)]

    def _address(self) -> str | None:
        lines = [line for line in self.process.output.splitlines() if line.startswith("ready: ")]
        return lines[0].removeprefix("ready: ") if lines else None

    def _ready(self) -> bool:
        seen = self.http.get("/readyz").json()
        return bool(seen["ready"]) and seen["workers"] == 2  # the one that calibrates may take longer to start


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
