"""Same request, same noise: what fixes a picture, and what must not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusionPipeline

from quant.checkpoints.pipelines import load_reference, load_variant
from quant.errors import InvalidPicture, ModelError, SamplingError
from quant.sampling.generation import generate
from quant.sampling.request import Sampling
from quant.sampling.schedulers import SCHEDULERS
from quant.sampling.walk import Walk, initial_noise
from tests.support.tiny_world import TinyWorld

REQUEST = Sampling("a red box", seed=7, num_inference_steps=3, guidance_scale=3.0, width=64, height=64, num_images=2)


@pytest.fixture(scope="module")
def reference(tiny: TinyWorld) -> StableDiffusionPipeline:
    return load_reference(tiny.description)


def test_noise_depends_on_seed_and_size_only() -> None:
    alone, _ = initial_noise((4, 8, 8), [12])
    batched, _ = initial_noise((4, 8, 8), [11, 12, 13])
    assert torch.equal(alone[0], batched[1])
    wanted = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(12))
    assert torch.equal(alone, wanted)


def test_same_request_same_pictures(reference: StableDiffusionPipeline) -> None:
    first, second = generate(reference, REQUEST), generate(reference, REQUEST)
    assert torch.equal(first.latents, second.latents)
    assert first.pictures[0].tobytes() == second.pictures[0].tobytes() != first.pictures[1].tobytes()


def test_picture_i_has_seed_plus_i(reference: StableDiffusionPipeline) -> None:
    both = generate(reference, REQUEST)
    second = generate(reference, replace(REQUEST, seed=8, num_images=1))
    torch.testing.assert_close(both.latents[1:], second.latents, rtol=1e-4, atol=1e-4)
    assert replace(REQUEST, seed=2**32 - 1).seeds == [2**32 - 1, 0]


def test_it_is_what_diffusers_draws(reference: StableDiffusionPipeline) -> None:
    noise, generators = initial_noise((4, 32, 32), [7, 8])
    wanted = reference(
        "a red box", num_images_per_prompt=2, latents=noise, generator=generators, num_inference_steps=3,
        guidance_scale=3.0, width=64, height=64, output_type="pt",
    ).images  # fmt: skip
    torch.testing.assert_close(generate(reference, REQUEST).values, wanted)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_draws_and_leaves_the_pipeline_as_it_was(
    reference: StableDiffusionPipeline, scheduler: str
) -> None:
    own = reference.scheduler
    drawn = generate(reference, replace(REQUEST, scheduler=scheduler, num_images=1, num_inference_steps=5))
    assert torch.isfinite(drawn.latents).all() and reference.scheduler is own


def test_steps_are_told_and_can_end_it(reference: StableDiffusionPipeline) -> None:
    seen: list[tuple[int, int]] = []
    generate(reference, REQUEST, lambda step, total: seen.append((step, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]

    class Stop(Exception):
        pass

    def stop(step: int, total: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        generate(reference, REQUEST, stop)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_picture_that_is_not_finite_is_an_error(tiny: TinyWorld, value: float) -> None:
    broken = load_variant(tiny.folder(8))
    # The last quantized layer before the output: earlier ones hand on codes, which are always finite.
    broken.unet.up_blocks[-1].resnets[-1].conv2.weight_scale.fill_(value)
    with pytest.raises(InvalidPicture, match="finite"):
        generate(broken, REQUEST)


def test_a_flat_picture_is_an_error(tiny: TinyWorld) -> None:
    flat = load_reference(tiny.description)
    torch.nn.init.zeros_(flat.vae.decoder.conv_out.weight)
    with pytest.raises(InvalidPicture, match="flat"):
        generate(flat, REQUEST)


def test_bad_settings_are_refused(reference: StableDiffusionPipeline) -> None:
    with pytest.raises(SamplingError, match="dpm-9"):
        generate(reference, replace(REQUEST, scheduler="dpm-9"))
    with pytest.raises(SamplingError, match="multiples of 8"):
        generate(reference, replace(REQUEST, width=66))


def _without_weights(tiny: TinyWorld) -> str:
    return str(tiny.models.parent / "nothing-here")


def test_a_missing_model_is_said(tiny: TinyWorld) -> None:
    for source in (_without_weights(tiny), str(tiny.models.parent)):
        with pytest.raises(ModelError, match="cannot be loaded"):
            load_reference(tiny.description.model_copy(update={"source": source}))
    with pytest.raises(ModelError, match="floating-point"):
        load_reference(tiny.description.model_copy(update={"dtype": "int8"}))


def test_variants_and_reference_start_from_the_same_noise(tiny: TinyWorld, reference: StableDiffusionPipeline) -> None:
    pipelines = (reference, load_variant(tiny.folder(8)), load_variant(tiny.folder(4)))
    seen = [Walk(pipeline, [REQUEST.prompt] * 2, REQUEST.seeds, REQUEST).start for pipeline in pipelines]
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[0], seen[2])
