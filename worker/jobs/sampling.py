"""What generation and comparison share: a payload as quant's sampling, and a comparison as a score."""

from __future__ import annotations

from contract.card import Card
from contract.payloads import SamplingPayload
from contract.results import Score
from quant.comparison import Comparison
from quant.generation import Sampling


def sampling_of(payload: SamplingPayload) -> Sampling:
    """The payload in quant's words."""
    return Sampling(
        prompt=payload.prompt,
        negative_prompt=payload.negative_prompt,
        seed=payload.seed,
        num_inference_steps=payload.num_inference_steps,
        guidance_scale=payload.guidance_scale,
        width=payload.width,
        height=payload.height,
        num_images=payload.num_images,
        scheduler=payload.scheduler,
    )


def score_of(comparison: Comparison, card: Card) -> Score:
    """The metrics of a comparison, beside the noise floor on the variant's card."""
    metrics = {name: tuple(values) for name, values in comparison.metrics.items()}
    return Score(metrics=metrics, noise_floor=card.report.noise_floor)
