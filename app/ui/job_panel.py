"""The part that all tabs with jobs share: a button that starts one, one that stops it, and the line that says how far
it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from app.answers import JobAnswer
from app.ui.api import Api, Connection, ServiceError
from contract.jobs import JobState
from contract.kinds import JobKind

Updates = dict[Component, Any]
MakeBody = Callable[..., dict[str, Any]]
ShowResult = Callable[[Connection, JobAnswer, Path], Awaitable[Updates]]


class JobPanel:
    """Build it where the buttons belong, then call `runs` once."""

    def __init__(self, api: Api, key: gr.Textbox, start: str) -> None:
        self._api = api
        self._key = key
        with gr.Row():
            self.start = gr.Button(start, variant="primary", scale=3)
            self.stop = gr.Button("Stop", scale=1, visible=False)
        self.line = gr.HTML(job_line("Ready."))
        self._link = gr.State("")
        self.stop.click(
            self._cancel, [self._link, key], [self.line], queue=False, show_progress="hidden", api_visibility="private"
        )

    def runs(
        self,
        kind: JobKind,
        inputs: Sequence[Component],
        make_body: MakeBody,
        outputs: Sequence[Component],
        show_result: ShowResult,
    ) -> Dependency:
        """Make the start button run a job of this kind: `make_body` turns the values of `inputs` into the request,
        `show_result` turns the succeeded job into updates of `outputs`."""

        async def run(key: str, *values: Any) -> AsyncIterator[Updates]:
            yield {self.start: gr.update(interactive=False), self.line: job_line("Handing in the job.")}
            try:
                async with self._api.connect(key) as connection:
                    job = await connection.submit(kind, make_body(*values))
                    yield {self.stop: gr.update(visible=True), self._link: job.links.cancel}
                    async for latest in connection.follow(job):
                        job = latest
                        yield {self.line: _running(job)}
                    with TemporaryDirectory(prefix="facsimile-page-") as folder:
                        yield await self._ended(connection, job, Path(folder), show_result)
            except ServiceError as error:
                yield {self.line: job_line(str(error), failed=True)}
            yield {self.start: gr.update(interactive=True), self.stop: gr.update(visible=False), self._link: ""}

        return self.start.click(
            run,
            [self._key, *inputs],
            [self.start, self.stop, self.line, self._link, *outputs],
            show_progress="hidden",
            api_visibility="private",
        )

    async def _ended(self, connection: Connection, job: JobAnswer, folder: Path, show_result: ShowResult) -> Updates:
        if job.status is JobState.SUCCEEDED:
            updates = await show_result(connection, job, folder)
            return {self.line: job_line(f"Done in {_seconds(job):.1f} s."), **updates}
        if job.error:
            return {self.line: job_line(f"{job.error.message} ({job.error.code})", failed=True)}
        return {self.line: job_line("Stopped.")}

    async def _cancel(self, link: str, key: str) -> str:
        if not link:
            return job_line("There is nothing to stop.")
        try:
            async with self._api.connect(key) as connection:
                await connection.cancel(link)
        except ServiceError as error:
            return job_line(str(error), failed=True)
        return job_line("Stopping.")


def job_line(text: str, *, failed: bool = False, part: float | None = None) -> str:
    """The status line as HTML; `part` in 0..1 draws a bar."""
    bar = "" if part is None else f'<progress max="1" value="{part:.3f}"></progress>'
    return f'<div class="job-line{" failed" if failed else ""}" role="status">{bar}<span>{escape(text)}</span></div>'


def _running(job: JobAnswer) -> str:
    if job.progress is None:
        return job_line("Waiting for a worker." if job.status is JobState.QUEUED else "Starting.")
    stage, step, steps = job.progress.stage, job.progress.step, job.progress.steps
    text = f"{stage.replace('_', ' ').capitalize()}: {step} of {steps}" if steps else stage.capitalize()
    note = f" ({job.progress.note})" if job.progress.note else ""
    return job_line(text + note, part=step / steps if steps else None)


def _seconds(job: JobAnswer) -> float:
    if job.started_at is None or job.finished_at is None:
        return 0.0
    return (job.finished_at - job.started_at).total_seconds()
