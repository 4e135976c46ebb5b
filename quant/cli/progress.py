"""Progress on standard error: bars with the time left for a person, lines for a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from quant.sampling.progress import Progress

LINE_SECONDS = 20.0
"""A stage that lasts says so again after so many seconds, where there is no terminal."""


@contextmanager
def progress_bar(console: Console) -> Iterator[Progress]:
    """Progress that draws a bar for each stage, or, where nobody watches, writes a line when a stage begins, now and
    then while it lasts, and when it is done."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("{task.description:>14}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Bars(*columns, console=console) as progress:
        bars: dict[str, Any] = {}

        def show(stage: str, done: int, total: int, note: str = "", /) -> None:
            if stage not in bars:
                bars[stage] = progress.add_task(stage, total=total, note="")
            progress.update(bars[stage], completed=done, total=total, note=note)

        yield show


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage = ""
        self._began = self._told = 0.0

    def __call__(self, stage: str, done: int, total: int, note: str = "", /) -> None:
        now = time.monotonic()
        begins, ends = stage != self._stage, done >= total
        if begins:
            self._stage, self._began = stage, now
        if begins or ends or now - self._told >= LINE_SECONDS:
            self._told = now
            left = f", {(now - self._began) / done * (total - done):.0f} s left" if done and not ends else ""
            self._console.print(f"{stage}: {done} of {total}{left}{f', {note}' if note else ''}", soft_wrap=True)
