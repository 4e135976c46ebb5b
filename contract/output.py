"""What a process and its children print, as log lines: libraries print progress bars, native code its warnings."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from typing import TextIO

_ONCE_SECONDS = 1.0
"""Lines that are left out are told of once in so many seconds."""

_log = logging.getLogger(__name__)


class CapturedOutput:
    """From now on standard error, and standard output if asked, of this process and of its children is read line by
    line: JSON passes as it is, everything else becomes a log line. `stream` is the real standard error."""

    def __init__(self, *, stdout: bool) -> None:
        sys.stderr.flush()
        self.stream: TextIO = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="replace")
        self._targets = (1, 2) if stdout else (2,)
        self._read, write = os.pipe()
        for target in self._targets:
            os.dup2(write, target)
        os.close(write)
        self._private = threading.Event()
        self._reader = threading.Thread(target=self._pump, name="output", daemon=True)
        self._reader.start()

    def withhold(self) -> None:
        """From now on what is printed may hold prompts: that something was printed is told, and not what."""
        self._private.set()

    def close(self) -> None:
        """Give standard error and output back, and wait a moment until all that was printed is logged."""
        for target in self._targets:
            os.dup2(self.stream.fileno(), target)
        self._reader.join(1.0)

    def _pump(self) -> None:
        told = 0.0
        with os.fdopen(self._read, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                text = line.strip()
                if _is_json(text):
                    self.stream.write(f"{text}\n")
                elif text and not self._private.is_set():
                    _log.info(text)
                elif text and time.monotonic() - told > _ONCE_SECONDS:
                    told = time.monotonic()
                    _log.info("something was printed, and left out: it may hold a prompt")


def _is_json(text: str) -> bool:
    try:
        return text.startswith("{") and isinstance(json.loads(text), dict)
    except ValueError:
        return False
