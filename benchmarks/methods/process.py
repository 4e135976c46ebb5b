"""An arm's process, seen from the study."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

from benchmarks.methods.task import Task
from benchmarks.process import environment
from benchmarks.shape import ROOT

END_SECONDS = 20.0

Stage = Callable[[str, int, int, str], None]


class ArmFailed(Exception):
    """An arm that gave no result, in a sentence."""


def run_process(task: Task, threads: int, on_stage: Stage) -> None:
    """Measures an arm in a process of its own, which ends with this call whatever happens. Raises ArmFailed."""
    log = task.places.log(task.arm)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.methods.child"],
            cwd=ROOT,
            env=os.environ | environment(threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
        )
    try:
        _follow(process, task, on_stage)
    finally:
        _end(process)


def _follow(process: subprocess.Popen[str], task: Task, on_stage: Stage) -> None:
    if process.stdin is None or process.stdout is None:
        raise ArmFailed(f"{task.arm}: its process has no pipes")
    try:
        process.stdin.write(task.model_dump_json())
        process.stdin.close()
    except BrokenPipeError as error:
        raise ArmFailed(f"{task.arm}: its process died at the start, see {task.places.log(task.arm)}") from error
    for line in process.stdout:
        message = json.loads(line)
        if "error" in message:
            raise ArmFailed(f"{task.arm}: {message['error']}")
        if "finished" in message:
            return
        on_stage(message["stage"], message["done"], message["total"], message["note"])
    status = process.wait()
    raise ArmFailed(f"{task.arm}: its process died, exit status {status}, see {task.places.log(task.arm)}")


def _end(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None and not pipe.closed:
            pipe.close()
    try:
        process.wait(timeout=END_SECONDS / 4)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
