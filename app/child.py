"""A child process of the all-in-one service: in its own process group, and never outliving its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

_STOP_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1


class Child:
    """Terminal signals do not reach it: its parent stops it, in order."""

    def __init__(
        self, name: str, command: Sequence[str], *, env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
    ) -> None:
        self.name = name
        self._command = command
        self._env = env
        self._pass_fds = pass_fds
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def status(self) -> int | None:
        """The exit status of its last run."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Start it, or start it again."""
        self._process = subprocess.Popen(
            self._command,
            env=self._env,
            pass_fds=self._pass_fds,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )

    def stop(self) -> None:
        """Ask it to end, and kill it if it does not."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
