"""The tab Evaluate: variants against the reference over whole prompt sets, to figures and a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from app.answers import JobAnswer
from app.ui.api import Api, Connection, Offer
from app.ui.choices import default_model, prompt_sets, refilled, refilled_several, standing
from app.ui.job_panel import JobPanel, Updates
from app.ui.numbers import metric_name, report_link, statistic
from contract.card import Statistic
from contract.kinds import JobKind
from contract.payloads import MAX_PROMPTS, REFERENCE
from contract.results import EvaluationResult

ABOUT = (
    "Draws whole prompt sets with the reference and with the variants, from the same noise, and measures how far apart "
    "the pictures are. The **floors** are the same figures for the reference against itself, in bfloat16 and "
    "from other noise. Hundreds of prompts take minutes with the small model and hours with large ones; pictures are "
    "not delayed, and a job that is interrupted goes on where it was."
)
Choices = list[str] | None


@dataclass(frozen=True)
class EvaluateTab:
    """`targets` are what an offer fills, in the order of `choices`; `done` is what happens after an evaluation."""

    targets: list[Component]
    done: Dependency

    @staticmethod
    def choices(offer: Offer, model: str | None, variants: Choices, sets: Choices) -> list[Any]:
        """Updates of the targets; what is chosen stays if it is still offered."""
        names = [each.id for each in offer.models]
        default = default_model(offer)
        return [refilled(names, model, default), *_follow(standing(names, model, default), offer, variants, sets)]


def build(api: Api, key: gr.Textbox, offer: gr.State) -> EvaluateTab:
    """Lay the tab out and wire it."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=5):
            gr.Markdown(ABOUT)
            model = gr.Dropdown(label="Model", choices=[], interactive=True)
            variants = gr.Dropdown(
                label="Variants", info="All of them if none is chosen.", choices=[], multiselect=True, interactive=True
            )
            sets = gr.Dropdown(
                label="Prompt sets",
                info="The first is the primary one.",
                choices=[],
                multiselect=True,
                interactive=True,
            )
            count = gr.Number(label="Prompts of each set", value=64, precision=0, minimum=1, maximum=MAX_PROMPTS)
            panel = JobPanel(api, key, "Evaluate")
        with gr.Column(scale=6):
            link = gr.HTML()
            copy = gr.DownloadButton("Download the report", size="sm", visible=False)
            tables = gr.Markdown("The figures appear here.", elem_classes="facts")
    seen = [model, offer, variants, sets]
    model.input(_follow, seen, [variants, sets], show_progress="hidden", api_visibility="private")

    async def show(connection: Connection, job: JobAnswer, folder: Path) -> Updates:
        result = job.result
        if not isinstance(result, EvaluationResult):
            return {}
        url = result.report["html"]
        return {
            link: report_link(url, "Read the whole report") if connection.open else "",
            copy: gr.update(value=await connection.download(url, folder), visible=True),
            tables: summary(result),
        }

    inputs: list[Component] = [model, variants, sets, count]
    done = panel.runs(JobKind.EVALUATION, inputs, _body, [link, copy, tables], show)
    return EvaluateTab([model, variants, sets], done)


def summary(result: EvaluationResult) -> str:
    """The means with their intervals as Markdown: a table per prompt set, the floors beside the first one's."""
    names = dict.fromkeys(name for sets in result.variants.values() for name in sets)
    parts = [f"- **{variant}** could not be measured: {reason}\n" for variant, reason in result.failures.items()]
    floors: Mapping[str, Mapping[str, Statistic]] = {f"*{_prose(name)}*": each for name, each in result.floors.items()}
    for name in names:
        arms = {variant: sets[name] for variant, sets in result.variants.items() if name in sets}
        parts.append(f"\n### {name}\n\n{_table({**arms, **floors})}")
        floors = {}
    return "".join(parts) or "Nothing could be measured."


def _table(arms: Mapping[str, Mapping[str, Statistic]]) -> str:
    metrics = list(dict.fromkeys(metric for figures in arms.values() for metric in figures))
    rows = "".join(
        f"| {arm} | {' | '.join(_cell(figures.get(metric)) for metric in metrics)} |\n" for arm, figures in arms.items()
    )
    head = " | ".join(metric_name(metric) for metric in metrics)
    return f"| Mean [95 %] | {head} |\n|---|{'---|' * len(metrics)}\n{rows}"


def _cell(value: Statistic | None) -> str:
    return statistic(value).replace("|", "\\|")


def _prose(floor: str) -> str:
    return f"floor: {floor.replace('_', ' ')}"


def _follow(name: str | None, offer: Offer | None, variants: Choices, sets: Choices) -> list[Any]:
    """Updates of the variants and the prompt sets of a model."""
    model = offer.model(name) if offer else None
    own = [each for each in model.variants if each != REFERENCE] if model else []
    known = prompt_sets(offer, name) if offer else []
    return [refilled_several(own, variants, []), refilled_several(known, sets, known[:1])]


def _body(model: str | None, variants: Choices, sets: Choices, count: float | None) -> dict[str, Any]:
    return {
        "model": model or "",
        "variants": variants or "all",
        "prompt_sets": sets or [],
        "limit": 0 if count is None else int(count),
    }
