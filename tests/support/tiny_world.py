"""A tiny model on disk with its W8A8 and W4A8 variants."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from contract.card import Card
from contract.catalogue import ModelDescription, read_models
from contract.recipe import CalibrationRun, Recipe
from quant.quantization.job import QuantizationJob
from quant.quantization.quantize import quantize
from quant.sampling.prompts import prompts_from_texts
from tests.support.tiny_model import save_tiny_model

KEPT = ("conv_in", "conv_out", "time_embedding.*", "*.time_emb_proj")


@dataclass(frozen=True)
class TinyWorld:
    """The tiny model's description, and a folder and a card per weight width."""

    models: Path
    description: ModelDescription
    variants: Path
    cards: dict[int, Card]

    def folder(self, bits: int) -> Path:
        """Where the variant with such weights is."""
        return self.variants / "tiny" / f"w{bits}a8-minmax"


def make_tiny_world(folder: Path) -> TinyWorld:
    """The model and its variants in a folder."""
    models = save_tiny_model(folder)
    description = read_models(models)["tiny"]
    cards = {}
    for bits in (8, 4):
        inputs = CalibrationRun(num_prompts=2, num_inference_steps=2, guidance_scale=3.0)
        recipe = Recipe(method="minmax", weight_bits=bits, keep_float=KEPT, calibration=inputs)
        job = QuantizationJob(
            model="tiny",
            description=description,
            recipe=recipe,
            variant=recipe.variant,
            calibration=prompts_from_texts(["a red box", "a blue ball"]),
            held_out=prompts_from_texts(["a green cone", "a ring", "two cones"]),
            prompt_set="own",
        )
        cards[bits] = quantize(job, folder / "variants" / "tiny" / recipe.variant, lambda *_: None)
    return TinyWorld(models, description, folder / "variants", cards)
