"""The tab Generate: a prompt to pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from app.answers import JobAnswer
from app.ui.api import Api, Connection
from app.ui.job_panel import JobPanel, Updates
from app.ui.numbers import stages
from app.ui.sampling import SamplingInputs, sampling_body
from contract.kinds import JobKind
from contract.results import GenerationResult


def build(api: Api, key: gr.Textbox, offer: gr.State) -> SamplingInputs:
    """Lay the tab out and wire it."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=5):
            inputs = SamplingInputs(offer, reference=True)
            count = gr.Slider(1, 8, value=1, step=1, label="Pictures")
            panel = JobPanel(api, key, "Generate")
            inputs.examples()
        with gr.Column(scale=6):
            gallery = gr.Gallery(
                label="Pictures",
                columns=2,
                fit_columns=False,
                height="auto",
                elem_id="pictures",
                format="png",
                buttons=["download"],
            )
            facts = gr.Markdown(elem_classes="facts")

    async def show(connection: Connection, job: JobAnswer, folder: Path) -> Updates:
        result = job.result
        if not isinstance(result, GenerationResult):
            return {}
        files = [await connection.download(image.url, folder) for image in result.images]
        return {gallery: files, facts: _facts(result)}

    panel.runs(JobKind.GENERATION, [*inputs.components, count], _body, [gallery, facts], show)
    return inputs


def _body(*values: Any) -> dict[str, Any]:
    *sampling, count = values
    return sampling_body(*sampling) | {"num_images": int(count)}


def _facts(result: GenerationResult) -> str:
    made_by = f"variant `{result.digest[:12]}`" if result.digest else "the reference"
    return f"Seed **{result.seed}** · {stages(result.seconds)} · {made_by}"
