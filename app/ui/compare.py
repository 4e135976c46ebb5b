"""The tab Compare: the reference against a variant on the same noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from app.answers import JobAnswer
from app.ui.api import Api, Connection
from app.ui.job_panel import JobPanel, Updates
from app.ui.numbers import figure, megabytes, metric_name, stages, statistic
from app.ui.sampling import SamplingInputs, sampling_body
from contract.kinds import JobKind
from contract.results import Arm, ComparisonResult, Score

ABOUT = (
    "Both pictures start from the same noise. The **noise floor** is the same figure for the reference in bfloat16 "
    "against itself: a variant that comes near it differs no more than a change of number format does."
)

SHOWN: dict[str, Any] = {"type": "filepath", "format": "png", "height": 420, "interactive": False}
"""What both pictures of the tab have in common."""


def build(api: Api, key: gr.Textbox, offer: gr.State) -> SamplingInputs:
    """Lay the tab out and wire it."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=5):
            inputs = SamplingInputs(offer, reference=False)
            panel = JobPanel(api, key, "Compare")
            inputs.examples()
            gr.Markdown(ABOUT)
        with gr.Column(scale=6):
            with gr.Row():
                slider = gr.ImageSlider(label="Reference | variant", scale=3, buttons=["fullscreen"], **SHOWN)
                difference = gr.Image(label="Difference", scale=2, buttons=["download", "fullscreen"], **SHOWN)
            scores = gr.Dataframe(
                headers=["Metric", "This picture", "Noise floor"], label="Consistency", interactive=False
            )
            arms = gr.Markdown(elem_classes="facts")

    async def show(connection: Connection, job: JobAnswer, folder: Path) -> Updates:
        result = job.result
        if not isinstance(result, ComparisonResult):
            return {}
        pictures = (result.reference.images[0], result.variant.images[0], result.differences[0])
        reference, variant, map_ = [await connection.download(image.url, folder) for image in pictures]
        return {
            slider: (reference, variant),
            difference: map_,
            scores: score_rows(result.score),
            arms: f"Seed **{result.seed}**\n\n{_arm_table(result.reference, result.variant)}",
        }

    panel.runs(JobKind.COMPARISON, inputs.components, sampling_body, [slider, difference, scores, arms], show)
    return inputs


def score_rows(score: Score) -> list[list[str]]:
    """One row per metric: its name, the first picture's value, the noise floor."""
    return [
        [metric_name(name), figure(values[0]), statistic(score.noise_floor.get(name))]
        for name, values in score.metrics.items()
        if values
    ]


def _arm_table(reference: Arm, variant: Arm) -> str:
    rows = "".join(
        f"| {name} | {stages(arm.seconds)} | {megabytes(arm.resident_bytes)} |\n"
        for name, arm in (("Reference", reference), ("Variant", variant))
    )
    return f"| | Seconds | Weights in memory |\n|---|---|---|\n{rows}"
