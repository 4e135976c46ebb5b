"""A payload in quant's words."""

from __future__ import annotations

from contract.payloads import GenerationPayload
from quant.sampling.request import Sampling
from worker.jobs.sampling import sampling_of


def test_all_that_fixes_a_picture_is_handed_on() -> None:
    payload = GenerationPayload(
        prompt="a red cube",
        negative_prompt="blur",
        model="tiny",
        variant="mine",
        seed=7,
        num_inference_steps=3,
        guidance_scale=2.5,
        width=96,
        height=64,
        num_images=2,
        scheduler="euler",
        strict=True,
        output_format="webp",
        score=True,
    )
    assert sampling_of(payload) == Sampling("a red cube", "blur", 7, 3, 2.5, 96, 64, 2, "euler")
