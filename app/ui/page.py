"""The page: a masthead, the API key where one is needed, five tabs."""

from __future__ import annotations

from itertools import chain
from typing import Any

import gradio as gr

from app.ui import calibrate, compare, evaluate, generate, variants
from app.ui.api import Api, KeyNeeded, ServiceError
from app.ui.job_panel import job_line

MASTHEAD = (
    "# Facsimile\n\nPictures from text by quantized models, each measured against its floating-point reference. "
    "[HTTP API](/docs)"
)
CONCURRENT_READERS = 32
"""Handlers that run at once. They only wait for the service, which has its own bounded queue."""


def build_page(api: Api) -> gr.Blocks:
    """The page as gradio blocks."""
    page = gr.Blocks(title="Facsimile", analytics_enabled=False, delete_cache=(3_600, 3_600))
    with page:
        gr.Markdown(MASTHEAD, elem_id="masthead")
        notice = gr.HTML(visible=False)
        key = gr.Textbox(
            label="API key", info="Press Enter to use it.", type="password", visible=False, elem_id="api-key"
        )
        offer = gr.State(None)
        with gr.Tab("Generate"):
            generating = generate.build(api, key, offer)
        with gr.Tab("Compare"):
            comparing = compare.build(api, key, offer)
        with gr.Tab("Variants"):
            table = variants.build(offer)
        with gr.Tab("Calibrate"):
            calibrating = calibrate.build(api, key)
        with gr.Tab("Evaluate"):
            evaluating = evaluate.build(api, key, offer)

        tabs = (generating.targets, comparing.targets, [table], calibrating.targets, evaluating.targets)
        targets = [notice, key, offer, *chain.from_iterable(tabs)]

        async def fill(given: str, model: str | None, compared: str | None, *evaluated: Any) -> list[Any]:
            try:
                async with api.connect(given) as connection:
                    latest = await connection.offer()
            except ServiceError as error:
                asks = isinstance(error, KeyNeeded)
                shown = [
                    gr.update(value=job_line(str(error), failed=True), visible=True),
                    gr.update(visible=asks or bool(given)),
                ]
                return [*shown, *[gr.skip()] * (len(targets) - len(shown))]
            return [
                gr.update(visible=False),
                gr.skip(),
                latest,
                *generating.choices(latest, model),
                *comparing.choices(latest, compared),
                variants.rows(latest, linked=not given),
                *calibrating.choices(latest),
                *evaluating.choices(latest, *evaluated),
            ]

        seen = [key, generating.model, comparing.model, *evaluating.targets]
        for event in (page.load, key.submit, calibrating.done.success, evaluating.done.success):
            event(fill, seen, targets, show_progress="hidden", api_visibility="private")
    page.queue(default_concurrency_limit=CONCURRENT_READERS)
    return page
