"""Small variants of every kind, calibrated once, and copies of them for tests to misuse."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from torch import Tensor, nn

from contract.recipe import CalibrationRun, Recipe
from quant.calibration.calibrate import calibrate
from quant.calibration.journal import Journal
from quant.calibration.run import Run
from quant.methods import minmax
from tests.support.tiny_world import KEPT
from tests.support.toy_model import PROMPTS, SIZE, build_toy_pipeline, toy_sampling

STEPS = 2
RECIPES: dict[str, dict[str, Any]] = {
    "w8a8": {},
    "packed": {"weight_bits": 4, "packed": True},
    "tables": {"timestep_groups": 2, "split_shortcuts": True},
    "attention": {"attention_bits": 8},
    "dynamic": {"dynamic_activations": True},
    "time": {"stages": {"time_path": {"kind": "precalculate"}, "output_correction": {"kind": "ptqd"}}},
    "request": {"stages": {"time_path": {"kind": "per_request"}}},
    "mixed": {"weight_bits": 4, "layer_bits": {"*.conv1": 8}, "keep_float": (*KEPT, "*.conv2", "*.to_k")},
}

Make = Callable[..., StableDiffusionPipeline]


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    """Waking threads costs more than products of such sizes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def _calibrated(name: str) -> StableDiffusionPipeline:
    pipeline = build_toy_pipeline()
    # Pipelines made of these parts would set it, and call the denoiser with other timesteps than it was calibrated for.
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, steps_offset=1)
    options = {"keep_float": KEPT, **RECIPES[name]}
    inputs = CalibrationRun(num_prompts=2, num_inference_steps=STEPS, guidance_scale=2.0)
    recipe = Recipe(method="minmax", calibration=inputs, **options)
    calibrate(
        pipeline, recipe, recipe.complete(minmax.STAGES), Run(PROMPTS[:2], toy_sampling(STEPS)), Journal(None),
        lambda *_: None,
    )  # fmt: skip
    pipeline.unet.eval().requires_grad_(False)
    return pipeline


@pytest.fixture(scope="session")
def make() -> Make:
    """A function from a recipe's name to a pipeline of its own; the VAE and the text encoder are shared."""

    def build(name: str = "w8a8") -> StableDiffusionPipeline:
        whole = _calibrated(name)
        # A tokenizer of transformers keeps padding and truncation of the call that runs: threads cannot share one.
        own = {part: copy.deepcopy(whole.components[part]) for part in ("unet", "scheduler", "tokenizer")}
        parts = whole.components | own
        pipeline = StableDiffusionPipeline(**parts, requires_safety_checker=False)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    return build


@pytest.fixture(params=RECIPES)
def variant(request: pytest.FixtureRequest, make: Make) -> StableDiffusionPipeline:
    """A pipeline of every recipe in turn."""
    return make(request.param)


def draw(pipeline: Any, seed: int = 0, **options: Any) -> Tensor:
    """The latents of a picture of a red blob, float32 [1, 4, 8, 8]."""
    given = {"num_inference_steps": STEPS, "guidance_scale": 2.0, "width": SIZE, "height": SIZE} | options
    generator = torch.Generator().manual_seed(seed)
    return pipeline(PROMPTS[0], generator=generator, **{"output_type": "latent"} | given).images  # type: ignore[no-any-return]


def denoise(unet: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
    """One call of a denoiser on two latents, at a timestep of the calibrated schedule: float32 [2, 4, 8, 8]."""
    x, context = inputs(dtype)
    return unet(x, 501, context).sample  # type: ignore[no-any-return]


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Latents [2, 4, 8, 8] and the context [2, 16, 32]."""
    generator = torch.Generator().manual_seed(3)
    latents, context = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 16, 32, generator=generator)
    return latents.to(dtype), context.to(dtype)


def distance(got: Tensor, wanted: Tensor) -> float:
    """The norm of the difference by that of `wanted`."""
    return ((got.float() - wanted.float()).norm() / wanted.float().norm()).item()
