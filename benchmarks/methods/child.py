"""The process that measures one arm: a task in JSON on standard input, progress in JSON lines on standard output.

What libraries print goes to standard error, the arm's log. `python -m benchmarks.methods.child` is started by the study
only."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from benchmarks.methods.measurement import measure
from benchmarks.methods.task import Task
from quant.errors import QuantError


def main() -> int:
    """Measures the arm; the exit status is 1 where that failed."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    task = Task.model_validate_json(sys.stdin.read())

    def show(stage: str, done: int, total: int, note: str = "") -> None:
        _say(answers, {"stage": stage, "done": done, "total": total, "note": note})

    try:
        with _alone(task.places.variants / f".{task.arm}.lock"):
            measure(task, show)
    except Exception as error:  # whatever it is, the study goes on with the next arm
        traceback.print_exc()
        _say(answers, {"error": f"{type(error).__name__}: {error}"})
        return 1
    _say(answers, {"finished": task.arm})
    return 0


def _say(answers: TextIO, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Keeps two studies from the same arm. Raises QuantError when another process is at it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise QuantError("another process measures this arm") from error
        yield


if __name__ == "__main__":
    sys.exit(main())
