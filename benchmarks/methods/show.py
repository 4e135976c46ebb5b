"""Progress of the study on the console: a bar over arms with the time left, and the stage of the current arm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeft

from benchmarks.methods.task import Task
from benchmarks.result import stderr

ESTIMATED_OVER = 7 * 86_400.0
"""Seconds of the past that the time left is estimated from: arms take minutes to an hour each."""


@dataclass
class Display:
    """The two bars."""

    _progress: Progress
    _arms: TaskID
    _stage: TaskID

    def arm(self, done: int, task: Task) -> None:
        """The next arm, after `done` others."""
        self._progress.update(self._arms, completed=done, note=task.arm)
        self._progress.reset(self._stage, description="start", total=None, note="")

    def stage(self, name: str, done: int, total: int, note: str = "") -> None:
        """How far the current arm's stage is."""
        if self._progress.tasks[self._stage].description != name:
            self._progress.reset(self._stage, description=name, total=total, note=note)
        self._progress.update(self._stage, completed=done, total=total, note=note)


@contextmanager
def display(arms: int) -> Iterator[Display]:
    """Bars over so many arms, on standard error."""
    columns = (
        TextColumn("{task.description:>24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeLeft(),
        TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=stderr, speed_estimate_period=ESTIMATED_OVER) as progress:
        over = progress.add_task("arms", total=arms, note="")
        stage = progress.add_task("start", total=None, note="")
        yield Display(progress, over, stage)
        progress.update(over, completed=arms, note="")
