"""Every family draws what diffusers' own call draws."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from quant.errors import SamplingError
from quant.sampling.generation import draw
from quant.sampling.request import Sampling
from quant.sampling.schedulers import SAMPLERS, new_scheduler
from tests.support.tiny_families import FAMILY, SIZE, build, diffusers_pictures

PROMPTS = ["abc def", "x"]
SEEDS = [3, 2**32 - 1]
STEPS = 5
KIND = {"sd1": "noise", "sd2": "noise", "sdxl": "noise", "sd3": "flow", "ddim": "own", "ddpm": "own"}
CASES = [(name, sampler) for name, kind in KIND.items() for sampler in (None, *SAMPLERS[kind])]


def _asked(name: str) -> list[Any]:
    return [None, None] if KIND[name] == "own" else PROMPTS


@pytest.mark.parametrize(("name", "sampler"), CASES)
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_pictures_are_those_of_diffusers_bit_for_bit(name: str, sampler: str | None, scale: float) -> None:
    pipeline, asked = build(name), _asked(name)
    sampling = Sampling(num_inference_steps=STEPS, guidance_scale=scale, width=SIZE, height=SIZE, scheduler=sampler)
    drawn = draw(pipeline, asked, SEEDS, sampling)
    pipeline.scheduler = new_scheduler(pipeline, sampler)
    wanted = diffusers_pictures(pipeline, None if asked[0] is None else asked, SEEDS, STEPS, scale)
    assert torch.equal(drawn.values, wanted)
    assert drawn.faults == [None, None] and not torch.equal(drawn.values[0], drawn.values[1])


QUICK = (("sd1", torch.bfloat16), ("sd3", torch.bfloat16), ("sd3", torch.float16))
"""Processors without AVX-512 take minutes for the others."""


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, marks=() if (name, dtype) in QUICK else pytest.mark.slow)
        for name in FAMILY
        for dtype in (torch.bfloat16, torch.float16)
    ],
)
def test_in_half_precision_pictures_are_no_farther_from_the_exact_ones_than_those_of_diffusers(
    name: str, dtype: torch.dtype
) -> None:
    asked = _asked(name) * 4
    seeds = list(range(len(asked)))
    sampling = Sampling(num_inference_steps=STEPS, guidance_scale=3.0, width=SIZE, height=SIZE)
    exact = draw(build(name), asked, seeds, sampling).values
    ours = draw(build(name).to(dtype), asked, seeds, sampling).values
    theirs = diffusers_pictures(build(name).to(dtype), None if asked[0] is None else asked, seeds, STEPS, 3.0)
    assert (ours - exact).square().mean() <= (theirs - exact).square().mean()


@pytest.mark.parametrize("name", ["sd1", "sd3"])
def test_a_negative_prompt_is_the_pipelines_own(name: str) -> None:
    pipeline = build(name)
    sampling = Sampling("abc", "xyz", 7, STEPS, 3.0, SIZE, SIZE)
    drawn = draw(pipeline, ["abc"], [7], sampling).values
    extra = {"max_sequence_length": 12} if name == "sd3" else {}
    with torch.no_grad():
        wanted = pipeline(
            "abc", negative_prompt="xyz", generator=torch.Generator().manual_seed(7), num_inference_steps=STEPS,
            guidance_scale=3.0, height=SIZE, width=SIZE, output_type="pt", **extra,
        ).images  # fmt: skip
    assert torch.equal(drawn, wanted)
    assert not torch.equal(drawn, draw(pipeline, ["abc"], [7], Sampling("abc", "", 7, STEPS, 3.0, SIZE, SIZE)).values)


@pytest.mark.parametrize(
    ("name", "asked", "changed", "words"),
    [
        ("sd1", None, {}, "draws from a prompt"),
        ("ddim", "a cube", {}, "takes no prompt"),
        ("ddim", None, {"width": 64}, "32 x 32 pixels only, not 64 x 32"),
        ("sd1", "abc", {"width": 36}, "multiples of 8"),
        ("sd3", "abc", {"height": 34}, "multiples of 4"),
        ("sd3", "abc", {"scheduler": "ddim"}, "dpm\\+\\+2m, euler, heun, unipc"),
        ("ddim", None, {"scheduler": "pndm"}, "the model's own only"),
    ],
)
def test_what_a_model_does_not_take_is_refused_before_it_draws(
    name: str, asked: str | None, changed: dict[str, Any], words: str
) -> None:
    sampling = Sampling(**({"width": SIZE, "height": SIZE, "num_inference_steps": 2} | changed))
    with pytest.raises(SamplingError, match=words):
        draw(build(name), [asked], [0], sampling)
