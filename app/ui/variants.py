"""The tab Variants: what is served, and how faithful it was measured to be."""

from __future__ import annotations

from typing import Any, Literal

import gradio as gr

from app.ui.api import Offer
from app.ui.numbers import megabytes, report_link, statistic
from contract.card import Card

HEADERS = [
    "Model",
    "Variant",
    "Report",
    "Bits",
    "PSNR (dB) [95 %]",
    "Noise floor",
    "Denoiser",
    "Digest",
    "Made",
]


def build(offer: gr.State) -> gr.Dataframe:
    """Lay the tab out and wire it; answers the table that an offer fills with `rows`."""
    gr.Markdown(
        "Every variant has a card: its recipe, its files' digest, and how far its pictures are from the reference's."
    )
    types: list[Literal["str", "html"]] = ["html" if header == "Report" else "str" for header in HEADERS]
    table = gr.Dataframe(
        headers=HEADERS, datatype=types, interactive=False, wrap=True, label="Variants", elem_id="variants"
    )
    card = gr.JSON(label="Card (choose a row)", open=False)
    table.select(_choose, [offer], [card], show_progress="hidden", api_visibility="private")
    return table


def rows(offer: Offer, *, linked: bool) -> list[list[str]]:
    """One row per card. `linked` says whether the reader's browser can follow links into the API."""
    return [_row(card, linked) for card in offer.cards]


def _row(card: Card, linked: bool) -> list[str]:
    return [
        card.model,
        card.variant,
        report_link(card.evaluation, "Report") if card.evaluation and linked else card.evaluation or "",
        card.recipe.scheme.upper(),
        statistic(card.report.metrics.get("psnr")),
        statistic(card.report.noise_floor.get("psnr")),
        megabytes(card.denoiser_bytes),
        card.digest[:12],
        f"{card.created:%Y-%m-%d}",
    ]


def _choose(offer: Offer | None, event: gr.SelectData) -> dict[str, Any] | None:
    chosen = tuple(event.row_value[:2])
    cards = offer.cards if offer else []
    return next((card.model_dump(mode="json") for card in cards if (card.model, card.variant) == chosen), None)
