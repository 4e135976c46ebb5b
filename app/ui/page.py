"""The page: a masthead, the API key where one is needed, five tabs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, islice
from typing import Any, Protocol

import gradio as gr
from gradio.components import Component

from app.ui import calibrate, compare, evaluate, generate, variants
from app.ui.api import Api, KeyNeeded, Offer, ServiceError
from app.ui.job_panel import job_line

MASTHEAD = (
    "# Facsimile\n\nPictures from text by quantized models, each measured against its floating-point reference. "
    "[HTTP API](/docs)"
)
ABSENT_SECONDS, PRESENT_SECONDS = 3.0, 30.0
"""How often an open page looks for what is offered: while it has nothing to offer, and later."""

CONCURRENT_READERS = 32
"""Handlers that run at once. They only wait for the service, which has its own bounded queue."""


class Form(Protocol):
    """What an offer fills: `choices` takes the offer and the values of `targets`, and answers their updates."""

    @property
    def targets(self) -> list[Component]:
        """The lists of the form, and what follows from them."""

    @property
    def choices(self) -> Callable[..., list[Any]]:
        """What is chosen stays if it is still offered."""


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
            calibrating = calibrate.build(api, key, offer)
        with gr.Tab("Evaluate"):
            evaluating = evaluate.build(api, key, offer)

        clock = gr.Timer(ABSENT_SECONDS)
        tabs = (generating.targets, comparing.targets, [table], calibrating.targets, evaluating.targets)
        targets = [notice, key, clock, offer, *chain.from_iterable(tabs)]
        forms: list[Form] = [generating, comparing, calibrating, evaluating]

        async def fill(given: str, shown: Offer | None, *values: Any) -> list[Any]:
            try:
                async with api.connect(given) as connection:
                    latest = await connection.offer()
            except ServiceError as error:
                head = _absent(error, given)
                return [*head, *[gr.skip()] * (len(targets) - len(head))]
            head = [gr.update(visible=False), gr.skip(), gr.Timer(PRESENT_SECONDS, active=True)]
            if latest == shown:
                return [*head, *[gr.skip()] * (len(targets) - len(head))]
            left = iter(values)
            filled = [form.choices(latest, *islice(left, len(form.targets))) for form in forms]
            first, second, *others = filled
            return [*head, latest, *first, *second, variants.rows(latest, linked=not given), *chain(*others)]

        seen = [key, offer, *chain.from_iterable(form.targets for form in forms)]
        for event in (page.load, key.submit, clock.tick, calibrating.done.success, evaluating.done.success):
            event(fill, seen, targets, show_progress="hidden", api_visibility="private")
    page.queue(default_concurrency_limit=CONCURRENT_READERS)
    return page


def _absent(error: ServiceError, key: str) -> list[Any]:
    """Updates of the notice, the key's field and the clock, which waits where the reader has to give a key first."""
    asks = isinstance(error, KeyNeeded)
    return [
        gr.update(value=job_line(str(error), failed=True), visible=True),
        gr.update(visible=asks or bool(key)),
        gr.Timer(ABSENT_SECONDS, active=not asks),
    ]
