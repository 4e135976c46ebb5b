"""Every method in quant/methods, with the least it can be given, from a recipe to pictures of the loaded checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import quant.methods
from contract.recipe import Recipe
from quant.checkpoints.layout import quantized_layers
from quant.checkpoints.pipelines import denoiser_of, load_unsigned
from quant.discovery import find, names
from quant.quantization.job import QuantizationJob
from quant.quantization.quantize import quantize
from quant.sampling.generation import draw
from quant.sampling.prompts import prompts_from_texts
from quant.sampling.request import Sampling
from tests.support.tiny_world import KEPT, TinyWorld

LEAST = {
    "iterations": 2, "prompts": 2, "prompts_per_step": 2, "steps": 2, "samples": 4, "batch": 2, "rounds": 1,
    "epochs": 1, "validation_prompts": 1, "feature_prompts": 1,
}  # fmt: skip


def _least(method: str) -> dict[str, Any]:
    """The method's own options with every budget at its least."""
    options = find(quant.methods, method).STAGES.model_dump(exclude={"split_shortcuts", "per_step"})
    return {
        stage: {name: LEAST.get(name, value) for name, value in option.items()} for stage, option in options.items()
    }


@pytest.mark.parametrize("method", names(quant.methods))
def test_a_method_makes_a_checkpoint_that_loads_and_draws(method: str, tiny: TinyWorld, tmp_path: Path) -> None:
    recipe = Recipe.model_validate(
        {
            "method": method,
            "weight_bits": 4,
            "keep_float": (*KEPT[:2], "up_blocks.0.*"),
            "calibration": {"num_prompts": 4, "num_inference_steps": 4, "guidance_scale": 3.0},
            "stages": _least(method),
        }
    )
    job = QuantizationJob(
        model="tiny",
        description=tiny.description,
        recipe=recipe,
        variant=recipe.variant,
        calibration=prompts_from_texts(["a red box", "a blue ball", "a cone", "a ring"]),
        held_out=prompts_from_texts(["two boxes"]),
        prompt_set="own",
    )
    stages: list[tuple[str, int, int]] = []
    card = quantize(job, tmp_path / "out", lambda stage, done, total, note="": stages.append((stage, done, total)))
    pipeline = load_unsigned(tmp_path / "out")
    assert card.quantized_layers == len(quantized_layers(denoiser_of(pipeline))) > 0
    assert all(0 <= done <= total for _, done, total in stages), [s for s in stages if s[1] > s[2]]
    sampling = Sampling(prompt="", num_inference_steps=4, guidance_scale=3.0, width=64, height=64)
    drawn = draw(pipeline, ["two boxes"], [5], sampling)
    assert drawn.faults == [None] and drawn.latents.shape == (1, 4, 32, 32)
