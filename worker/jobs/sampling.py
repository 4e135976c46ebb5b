"""What generation and comparison share: a payload as quant's sampling, and a comparison as a score."""

from __future__ import annotations

from dataclasses import fields

from diffusers import DiffusionPipeline

from contract.card import Card
from contract.payloads import SamplingPayload
from contract.results import Score, TokenCount, Tokens
from quant.discovery import family_of
from quant.errors import PromptTooLong
from quant.fidelity.comparison import Comparison
from quant.sampling.request import Sampling


def sampling_of(payload: SamplingPayload) -> Sampling:
    """The payload in quant's words, which are the same: a payload has every field of a sampling."""
    return Sampling(**{field.name: getattr(payload, field.name) for field in fields(Sampling)})


def tokens_of(pipeline: DiffusionPipeline, payload: SamplingPayload) -> Tokens:
    """What the text encoders take of the prompts. Raises PromptTooLong where they would cut one and `strict` is set."""
    if payload.prompt is None:
        return {}
    prompts = {"prompt": payload.prompt}
    if payload.negative_prompt and payload.guidance_scale > 1.0:
        prompts["negative_prompt"] = payload.negative_prompt
    counts = {name: family_of(pipeline).tokens(pipeline, text) for name, text in prompts.items()}
    for name, by_encoder in counts.items():
        for encoder, (used, dropped) in by_encoder.items():
            if dropped and payload.strict:
                raise PromptTooLong(f"{name} has {used + dropped} tokens, and the {encoder} takes {used}")
    return {
        name: {encoder: TokenCount(used=used, dropped=dropped) for encoder, (used, dropped) in by_encoder.items()}
        for name, by_encoder in counts.items()
    }


def score_of(comparison: Comparison, card: Card) -> Score:
    """The metrics of a comparison, beside the floor on the variant's card."""
    metrics = {name: tuple(values) for name, values in comparison.metrics.items()}
    return Score(metrics=metrics, noise_floor=card.report.noise_floor)
