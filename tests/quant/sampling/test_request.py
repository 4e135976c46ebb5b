"""What is asked of a sampler, from a model's description, from a recipe, and from what a user changes."""

from __future__ import annotations

import pytest

from contract.catalogue import ModelDescription
from contract.recipe import CalibrationRun
from quant.sampling.request import Sampling

DESCRIPTION = ModelDescription(
    family="stable_diffusion", source=".", width=96, height=64, num_inference_steps=9, guidance_scale=2.5
)


def test_a_model_is_sampled_as_its_description_says() -> None:
    native = Sampling.native(DESCRIPTION)
    assert native == Sampling(
        prompt=None, seed=0, num_inference_steps=9, guidance_scale=2.5, width=96, height=64, num_images=1
    )


def test_a_recipe_brings_its_own_seed_steps_and_guidance() -> None:
    run = CalibrationRun(num_prompts=3, num_inference_steps=7, guidance_scale=1.5, seed=11)
    asked = Sampling.of_calibration(run, (48, 32))
    assert asked == Sampling(seed=11, num_inference_steps=7, guidance_scale=1.5, width=48, height=32)


def test_what_is_not_given_stays() -> None:
    native = Sampling.native(DESCRIPTION)
    changed = native.changed(num_inference_steps=None, guidance_scale=0.0, width=128, scheduler="euler")
    assert (changed.num_inference_steps, changed.guidance_scale) == (9, 0.0)
    assert (changed.width, changed.height, changed.scheduler) == (128, 64, "euler")
    with pytest.raises(TypeError, match="steps"):
        native.changed(steps=3)
