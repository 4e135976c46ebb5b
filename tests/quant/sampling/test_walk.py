"""The walk against the pipeline itself: calibration must see what a request will see."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler

from quant.calibration.trajectories import record
from quant.sampling.generation import draw
from quant.sampling.walk import Walk, denoise_with
from tests.support.toy_bench import toy_pipeline
from tests.support.toy_model import toy_sampling

PROMPTS = ["red blob", "grey bar", "blue bar"]
SEEDS = [3, 2**32 - 1, 8]
SAMPLERS: list[tuple[Any, dict[str, Any]]] = [
    (DDIMScheduler, {}),
    (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    (EulerDiscreteScheduler, {}),
    (PNDMScheduler, {"skip_prk_steps": True}),
    (PNDMScheduler, {}),
]


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@pytest.mark.parametrize(("scheduler", "config"), SAMPLERS)
def test_latents_are_those_of_the_pipeline_bit_for_bit(
    scheduler: Any, config: dict[str, Any], guidance_scale: float
) -> None:
    pipeline, sampling = toy_pipeline(scheduler, **config), toy_sampling(7, guidance_scale)
    wanted = draw(pipeline, PROMPTS, SEEDS, sampling).trajectory
    walk, denoise = Walk(pipeline, PROMPTS, SEEDS, sampling), denoise_with(pipeline, pipeline.unet)
    assert (len(walk.conditioning), walk.conditioning.branches) == (3, 1 if guidance_scale == 1.0 else 2)
    with torch.no_grad():
        for step in range(len(walk.timesteps)):
            assert not walk.done
            walk.advance(denoise(*walk.state.rows))
            assert torch.equal(walk.latents, wanted[:, step]), f"step {step}"
    assert walk.done and walk.step == wanted.shape[1]


@pytest.mark.parametrize(("scheduler", "config"), SAMPLERS)
def test_a_walk_begins_again_and_repeats(scheduler: Any, config: dict[str, Any]) -> None:
    pipeline = toy_pipeline(scheduler, **config)
    walk, denoise = Walk(pipeline, PROMPTS, SEEDS, toy_sampling(5)), denoise_with(pipeline, pipeline.unet)
    first = record([walk], denoise, lambda *_: None)
    again = walk.again()
    assert again.step == 0 and torch.equal(again.latents, walk.start) and walk.done
    second = record([again], denoise, lambda *_: None)
    assert torch.equal(first.latents, second.latents) and torch.equal(walk.latents, again.latents)
    with torch.no_grad():
        interrupted = walk.again()
        interrupted.advance(denoise(*interrupted.state.rows))
        record([fresh := interrupted.again()], denoise, lambda *_: None)
    assert torch.equal(fresh.latents, walk.latents)


def test_a_step_changes_nothing_in_the_pipeline() -> None:
    pipeline = toy_pipeline(DPMSolverMultistepScheduler)
    before, sampling = draw(pipeline, PROMPTS, SEEDS, toy_sampling(4)).latents, toy_sampling(4)
    record([Walk(pipeline, PROMPTS, SEEDS, sampling)], denoise_with(pipeline, pipeline.unet), lambda *_: None)
    assert torch.equal(draw(pipeline, PROMPTS, SEEDS, sampling).latents, before)


def test_rows_are_all_pictures_without_the_prompt_and_then_with_it() -> None:
    pipeline = toy_pipeline()
    walk = Walk(pipeline, PROMPTS, SEEDS, toy_sampling(4))
    latents, timesteps, rows = walk.state.rows
    conditioning, texts = rows.tensors["encoder_hidden_states"], walk.conditioning.tensors["encoder_hidden_states"]
    assert torch.equal(latents[:3], latents[3:]) and timesteps.tolist() == [walk.timesteps[0]] * 6
    assert torch.equal(conditioning[:3], texts[:, 0]) and torch.equal(conditioning[0], conditioning[1])
    assert torch.equal(conditioning[3:], texts[:, 1]) and not torch.equal(conditioning[3], conditioning[4])
    output = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(walk.guided(output), output[:3] + 2.0 * (output[3:] - output[:3]))


def test_recorded_states_are_those_of_a_batch_of_another_size() -> None:
    """Up to the order of sums: trajectories do not depend on which pictures are drawn together."""
    pipeline, sampling = toy_pipeline(), toy_sampling(4)
    denoise = denoise_with(pipeline, pipeline.unet)
    whole = record([Walk(pipeline, PROMPTS, SEEDS, sampling)], denoise, lambda *_: None)
    walks = [Walk(pipeline, [text], [seed], sampling) for text, seed in zip(PROMPTS, SEEDS, strict=True)]
    steps: list[tuple[int, int]] = []
    parts = record(walks, denoise, lambda done, total: steps.append((done, total)))
    assert whole.latents.shape == (3, 4, 4, 8, 8) and steps == [(k, 12) for k in range(1, 13)]
    assert torch.allclose(parts.latents, whole.latents, atol=1e-4)
    samples = whole.pick(((2, 1), (0, 3)))
    assert torch.equal(samples.latents[0], whole.latents[2, 1]) and torch.equal(samples.latents[0], samples.latents[1])
    assert samples.timesteps.tolist() == [*[walks[0].timesteps[1]] * 2, *[walks[0].timesteps[3]] * 2]
    texts, drawn = samples.rows.tensors["encoder_hidden_states"], whole.conditioning.tensors["encoder_hidden_states"]
    assert torch.equal(texts[:2], drawn[2])


@pytest.mark.parametrize("scheduler", [DDIMScheduler, DPMSolverMultistepScheduler])
def test_a_fork_ends_where_the_walk_does_and_leaves_it_alone(scheduler: Any) -> None:
    pipeline = toy_pipeline(scheduler)
    denoise = denoise_with(pipeline, pipeline.unet)
    walk, alone = (Walk(pipeline, PROMPTS, SEEDS, toy_sampling(6)) for _ in range(2))
    while not alone.done:
        alone.advance(denoise(*alone.state.rows))
    for step in range(6):
        aside, elsewhere = walk.fork(), walk.fork()
        while not aside.done:
            aside.advance(denoise(*aside.state.rows))
        elsewhere.advance(torch.zeros_like(torch.cat([walk.latents] * 2)))
        assert torch.equal(aside.latents, alone.latents) and walk.step == step
        walk.advance(denoise(*walk.state.rows))
    assert torch.equal(walk.latents, alone.latents)
