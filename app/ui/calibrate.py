"""The tab Calibrate: a preset to a new variant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from app.answers import JobAnswer
from app.ui.api import Api, Connection, Offer
from app.ui.choices import default_model, default_preset, prompt_sets, refilled, standing
from app.ui.job_panel import JobPanel, Updates
from app.ui.numbers import megabytes, metric_name, statistic
from contract.card import Card
from contract.kinds import JobKind
from contract.results import CalibrationResult

ABOUT = (
    "Runs the reference on calibration prompts, fixes the quantization parameters as the preset says, measures the "
    "result on prompts that calibration never saw, and serves it under the new name. This takes minutes; pictures are "
    "not delayed."
)


@dataclass(frozen=True)
class CalibrateTab:
    """`targets` are what an offer fills, in the order of `choices`; `done` is what happens after a calibration."""

    targets: list[Component]
    done: Dependency

    @staticmethod
    def choices(offer: Offer, model: str | None, preset: str | None, prompts: str | None) -> list[Any]:
        """Updates of the targets; what is chosen stays if it is still offered."""
        names, presets, default = [each.id for each in offer.models], offer.catalogue.presets, default_model(offer)
        return [
            refilled(names, model, default),
            refilled(list(presets), preset, default_preset(presets)),
            _prompts(standing(names, model, default), offer, prompts),
        ]


def build(api: Api, key: gr.Textbox, offer: gr.State) -> CalibrateTab:
    """Lay the tab out and wire it."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=5):
            gr.Markdown(ABOUT)
            model = gr.Dropdown(label="Model", choices=[], interactive=True)
            preset = gr.Dropdown(label="Preset", choices=[], interactive=True)
            prompts = gr.Dropdown(label="Prompt set", choices=[], interactive=True)
            name = gr.Textbox(label="Name of the new variant", placeholder="the recipe's own name if empty")
            panel = JobPanel(api, key, "Calibrate")
        with gr.Column(scale=6):
            summary = gr.Markdown("The new variant's figures appear here.", elem_classes="facts")
    model.input(_prompts, [model, offer, prompts], [prompts], show_progress="hidden", api_visibility="private")

    async def show(connection: Connection, job: JobAnswer, folder: Path) -> Updates:
        result = job.result
        return {summary: card_summary(result.card)} if isinstance(result, CalibrationResult) else {}

    done = panel.runs(JobKind.CALIBRATION, [model, preset, prompts, name], _body, [summary], show)
    return CalibrateTab([model, preset, prompts], done)


def card_summary(card: Card) -> str:
    """A card in short, as Markdown."""
    floor = card.report.noise_floor
    metrics = "".join(
        f"| {metric_name(name)} | {statistic(value)} | {statistic(floor.get(name))} |\n"
        for name, value in card.report.metrics.items()
    )
    return (
        f"### {card.model}:{card.variant}\n\n"
        f"{card.recipe.scheme.upper()}, {card.quantized_layers} layers quantized, {len(card.float_layers)} kept in "
        f"floating point; denoiser {megabytes(card.denoiser_bytes)} instead of "
        f"{megabytes(card.reference_denoiser_bytes)}; calibrated in {card.calibration_seconds:.0f} s.\n\n"
        f"| Metric | Mean [95 %] | Noise floor |\n|---|---|---|\n{metrics}\n"
        f"Digest `{card.digest}`"
    )


def _prompts(name: str | None, offer: Offer | None, chosen: str | None) -> Any:
    sets = prompt_sets(offer, name) if offer else []
    return refilled(sets, chosen, next(iter(sets), None))


def _body(model: str | None, preset: str | None, prompts: str | None, name: str) -> dict[str, Any]:
    body = {"model": model or "", "recipe": preset or "", "prompts": prompts or ""}
    return body | {"variant": name.strip()} if name.strip() else body
