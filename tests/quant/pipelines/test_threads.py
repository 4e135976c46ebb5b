"""Pipelines in threads, and parts that several pipelines share: no call reaches into another."""

from __future__ import annotations

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from torch import Tensor, nn

from quant.checkpoints.layout import quantized_layers
from quant.engine import native
from quant.engine.onednn import OneDNNEngine
from quant.engine.opaque_weight import SCRATCH
from quant.engine.passes import TorchPasses
from quant.layers.timesteps import PerThread, TimestepGroups
from tests.quant.pipelines.conftest import RECIPES, Make, draw

THREADS = 3
ROUNDS = 2


def _together(calls: list[tuple[StableDiffusionPipeline, int]]) -> list[Tensor]:
    """What each pipeline draws from its seed, all at the same time and several times over."""
    start = threading.Barrier(len(calls))

    def work(call: tuple[StableDiffusionPipeline, int]) -> list[Tensor]:
        start.wait()
        return [draw(call[0], call[1]) for _ in range(ROUNDS)]

    with ThreadPoolExecutor(len(calls)) as pool:
        drawn = list(pool.map(work, calls))
    for pictures in drawn:
        assert all(torch.equal(picture, pictures[0]) for picture in pictures)
    return [pictures[0] for pictures in drawn]


@pytest.mark.parametrize("name", RECIPES)
def test_separate_pipelines_in_threads_draw_what_they_draw_alone(make: Make, name: str) -> None:
    wanted = [draw(make(name), seed) for seed in range(THREADS)]
    got = _together([(make(name), seed) for seed in range(THREADS)])
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_pipelines_of_different_recipes_side_by_side(make: Make) -> None:
    names = ("packed", "w8a8", "mixed", "tables")
    wanted = [draw(make(name), 1) for name in names]
    got = _together([(make(name), 1) for name in names])
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize("name", ["w8a8", "packed", "tables", "time", "request"])
def test_one_denoiser_in_the_pipelines_of_several_threads(make: Make, name: str) -> None:
    """As in diffusers, scheduler and tokenizer are each pipeline's own; the first calls of the layers coincide."""
    wanted = [draw(make(name), seed) for seed in range(THREADS)]
    whole = make(name)
    pipelines = []
    for _ in range(THREADS):
        parts = whole.components | {part: copy.deepcopy(getattr(whole, part)) for part in ("scheduler", "tokenizer")}
        pipelines.append(StableDiffusionPipeline(**parts, requires_safety_checker=False))
        pipelines[-1].set_progress_bar_config(disable=True)
    got = _together(list(zip(pipelines, range(THREADS), strict=True)))
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_two_pipelines_of_one_set_of_parts_in_turn(make: Make) -> None:
    first = make("tables")
    second = StableDiffusionPipeline(**first.components, requires_safety_checker=False)
    second.set_progress_bar_config(disable=True)
    wanted = [draw(make("tables"), seed, num_inference_steps=steps) for seed, steps in ((0, 2), (1, 3))]
    for _ in range(2):
        assert torch.equal(draw(first, 0, num_inference_steps=2), wanted[0])
        assert torch.equal(draw(second, 1, num_inference_steps=3), wanted[1])


def test_a_pipeline_of_another_class_on_the_same_parts(make: Make) -> None:
    pipeline = make()
    before = draw(pipeline)
    other = StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    other("red blob", image=torch.rand(1, 3, 16, 16), strength=1.0, num_inference_steps=2, output_type="latent")
    assert torch.equal(draw(pipeline), before)


def test_threads_unpack_into_memory_of_their_own() -> None:
    here = SCRATCH.of(100)
    assert SCRATCH.of(50).data_ptr() == here.data_ptr(), "one thread uses its buffer again"
    with ThreadPoolExecutor(1) as pool:
        there = pool.submit(lambda: SCRATCH.of(100)).result()
    assert there.data_ptr() != here.data_ptr()


@pytest.mark.skipif(not native.available(), reason=f"weights are packed by the native kernels: {native.status()}")
def test_packed_weights_in_threads_on_onednn(make: Make) -> None:
    def built() -> StableDiffusionPipeline:
        pipeline = make("packed")
        for layer in quantized_layers(pipeline.unet).values():
            layer.engine = OneDNNEngine(TorchPasses())
        return pipeline

    wanted = [draw(built(), seed) for seed in range(THREADS)]
    got = _together([(built(), seed) for seed in range(THREADS)])
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_the_current_row_is_each_threads_own() -> None:
    groups = TimestepGroups([900.0, 100.0])
    groups.select(80)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: groups.current).result() == 1, "a thread that selected nothing sees the last choice"
        pool.submit(groups.select, 950).result()
        assert (groups.current, pool.submit(lambda: groups.current).result()) == (1, 0)
    assert copy.deepcopy(groups).current == 1 and pickle.loads(pickle.dumps(groups)).current == 1


def test_a_value_of_a_thread_starts_with_the_last_one() -> None:
    value = PerThread("first")
    assert value.get() == "first" and value.own() is None
    value.set("second")
    assert value.own() == "second"


def test_no_class_of_the_library_holds_tensors() -> None:
    """A tensor on a class is shared by all pipelines."""
    import quant.engine.opaque_weight
    import quant.layers.fusion
    import quant.layers.time_path.per_request

    for module in (quant.engine.opaque_weight, quant.layers.time_path.per_request, quant.layers.fusion):
        kinds = [kind for kind in vars(module).values() if isinstance(kind, type)]
        held = [kind for kind in kinds for value in vars(kind).values() if isinstance(value, Tensor | nn.Module)]
        assert not held
