"""What a form's lists offer, and which choice stands in them: what the reader chose stays while it is offered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gradio as gr

from app.ui.api import Offer
from contract.card import Card
from contract.catalogue import SEEDS
from contract.payloads import REFERENCE
from contract.recipe import Recipe

CHEAP_PRESET = "minmax-w8a8"


def standing(offered: Sequence[str], chosen: str | None, default: str | None) -> str | None:
    """The choice that stands in a list: the reader's, or the default where that is not offered."""
    return chosen if chosen is not None and chosen in offered else default


def refilled(offered: list[str], chosen: str | None, default: str | None) -> Any:
    """An update of a list that leaves alone what is chosen, unless it cannot be: the reader may be choosing now."""
    stands = standing(offered, chosen, default)
    return gr.update(choices=offered) if stands == chosen else gr.update(choices=offered, value=stands)


def refilled_several(offered: list[str], chosen: list[str] | None, default: list[str]) -> Any:
    """The same for a list in which several may be chosen."""
    stand = [name for name in chosen or [] if name in offered] or default
    return gr.update(choices=offered) if stand == (chosen or []) else gr.update(choices=offered, value=stand)


def default_model(offer: Offer) -> str | None:
    """The first one."""
    return next((model.id for model in offer.models), None)


def takes_prompts(offer: Offer, model: str | None) -> bool:
    """Whether a model is asked with prompts; one that is not there may be."""
    known = offer.model(model)
    return known is None or known.asked == "text"


def prompt_sets(offer: Offer, model: str | None) -> list[str]:
    """What a model is calibrated and evaluated on: sets of prompts, or pictures that only their seeds tell apart."""
    return offer.catalogue.prompt_sets if takes_prompts(offer, model) else [SEEDS]


def default_preset(presets: dict[str, Recipe]) -> str | None:
    """A cheap one: a first calibration must not take an hour."""
    names = [CHEAP_PRESET, *(name for name, recipe in presets.items() if recipe.method == "minmax"), *presets]
    return next((name for name in names if name in presets), None)


def default_variant(offer: Offer, model: str | None, offered: list[str]) -> str | None:
    """The one that was measured to be nearest to the reference; without figures the first, the reference last."""
    cards = {card.variant: card for card in offer.cards if card.model == model}
    quantized = [name for name in offered if name != REFERENCE]
    nearest = max(quantized, key=lambda name: _nearness(cards.get(name)), default=None)
    return nearest or next(iter(offered), None)


def _nearness(card: Card | None) -> float:
    """Mean psnr in dB, as measured when the variant was made."""
    psnr = card.report.metrics.get("psnr") if card else None
    return -math.inf if psnr is None or psnr.mean is None else psnr.mean
