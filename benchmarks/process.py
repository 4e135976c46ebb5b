"""A contender's process, seen from the one that measures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.contender import CONTENDERS
from benchmarks.shape import CACHE, ROOT

PEERS = ROOT / ".venv-peers" / "bin" / "python"


class ContenderError(Exception):
    """A contender that cannot run, in a sentence."""


class Process:
    """Starts the contender's own interpreter and exchanges JSON lines with it; what it prints goes to a log."""

    def __init__(self, contender: str, threads: int) -> None:
        self.contender = contender
        log = CACHE / "log" / f"{contender}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as stream:
            self._process = subprocess.Popen(
                [str(interpreter(contender)), "-m", "benchmarks.runner"],
                cwd=ROOT,
                env=os.environ | environment(threads),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """The answer to a command. Raises ContenderError when the contender failed or its process died."""
        if self._process.stdin is None or self._process.stdout is None:
            raise ContenderError(f"{self.contender} has no pipes")
        try:
            self._process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ContenderError(f"{self.contender} died at `{command}`, exit status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ContenderError(f"{self.contender} failed at `{command}`: {answer['error']}")
        return answer

    def close(self) -> None:
        """Ends the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def interpreter(contender: str) -> Path:
    """The Python that runs a contender. Raises ContenderError where its environment has not been made."""
    if contender not in CONTENDERS:
        raise ContenderError(f"there is no contender {contender}; there are {', '.join(CONTENDERS)}")
    if not CONTENDERS[contender].peer:
        return Path(sys.executable)
    if not PEERS.exists():
        raise ContenderError(f"{contender} needs the environment of the rivals: run `make bench-peers`")
    return PEERS


def environment(threads: int) -> dict[str, str]:
    """Variables that every contender gets: the same number of threads, no network, compiled code in the cache."""
    return {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(CACHE / "inductor"),
        "TOKENIZERS_PARALLELISM": "false",
    }
