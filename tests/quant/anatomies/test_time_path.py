"""What anatomies say of the time path, against what calls show."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quant.conditioning import Rows
from quant.discovery import anatomy_of, family_of
from quant.errors import RecipeMismatch, TimestepError
from quant.layers.time_path.coded import CodedProjection, code
from quant.layers.time_path.serving import serve
from quant.sampling.request import Sampling
from quant.sampling.walk import Walk
from tests.support.tiny_families import BUILDERS, SIZE, build

NAMES = list(BUILDERS)
STEPS = 4


class World:
    """One denoiser and what it is called with."""

    def __init__(self, name: str) -> None:
        self.pipeline = build(name)
        self.family = family_of(self.pipeline)
        self.denoiser: Any = self.pipeline.components[self.family.denoiser]
        self.anatomy = anatomy_of(self.denoiser)
        asked = [None, None] if name == "ddim" else ["abc", "xyz a"]
        sampling = Sampling(num_inference_steps=STEPS, guidance_scale=3.0, width=SIZE, height=SIZE)
        self.walk = Walk(self.pipeline, asked, [1, 2], sampling)
        self.timesteps = self.walk.timesteps

    def at(self, timestep: float, latents: Tensor | None = None, rows: Rows | None = None) -> tuple[Any, ...]:
        drawn, _, own = self.walk.state.rows
        latents = drawn if latents is None else latents
        return latents, torch.tensor(timestep).expand(len(latents)), own if rows is None else rows

    @torch.no_grad()
    def call(self, denoiser: nn.Module, *arguments: Any) -> Tensor:
        return self.family.call(denoiser, *arguments)

    def served(self, mode: str) -> Any:
        """A copy whose time path is looked up."""
        served = copy.deepcopy(self.denoiser)
        path = self.anatomy.time_path(served)
        serve(served, path, mode, self.timesteps, self.anatomy.clock)
        return served


@contextmanager
def _inputs(denoiser: nn.Module) -> Iterator[dict[str, Tensor]]:
    """What every linear and convolution layer reads while the context is open."""
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, args: seen.update({name: args[0].clone()})

    layers = [(name, m) for name, m in denoiser.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    handles = [module.register_forward_pre_hook(note(name)) for name, module in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("name", NAMES)
def test_no_layer_of_the_time_path_is_undeclared(name: str) -> None:
    """A layer belongs to it when its input depends on the timestep or on what enters beside it, not on the latents."""
    world = World(name)
    path = world.anatomy.time_path(world.denoiser)
    latents, _, _ = world.at(world.timesteps[0])
    reads: list[dict[str, Tensor]] = []
    for timestep, given in (
        (world.timesteps[0], latents),
        (world.timesteps[1], latents),
        (world.timesteps[0], latents.flip(0) + 1.0),
    ):
        with _inputs(world.denoiser) as seen:
            world.call(world.denoiser, *world.at(timestep, given))
        reads.append(seen)
    first, later, elsewhere = reads
    timed = {layer for layer, x in first.items() if not torch.equal(x, later[layer])}
    of_latents = {layer for layer, x in first.items() if not torch.equal(x, elsewhere[layer])}
    found = {layer for layer in timed - of_latents if first[layer].ndim == 2}  # tokens are of the text
    declared = {layer for layer in first if path.has(layer)}
    assert found and found <= declared
    # What else is declared depends on what enters beside the timestep: pooled texts and the like.
    assert all(first[layer].ndim == 2 for layer in declared) and (declared == found or path.request)


@pytest.mark.parametrize("mode", ["precalculate", "per_request"])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_looked_up_is_what_the_layers_give(name: str, mode: str) -> None:
    world = World(name)
    path = world.anatomy.time_path(world.denoiser)
    if mode == "precalculate" and path.request:
        with pytest.raises(RecipeMismatch, match=path.request[0]):
            world.served(mode)
        return
    served = world.served(mode)
    for timestep in (*world.timesteps, world.timesteps[0]):
        wanted = world.call(world.denoiser, *world.at(timestep))
        found = world.call(served, *world.at(timestep))
        assert (found - wanted).abs().max() <= 2e-6 * wanted.abs().max()
    mixed = torch.tensor([world.timesteps[i % STEPS] for i in range(len(world.at(0.0)[0]))])
    latents, _, rows = world.at(0.0)
    wanted, found = (world.call(each, latents, mixed, rows) for each in (world.denoiser, served))
    assert (found - wanted).abs().max() <= 2e-6 * wanted.abs().max()
    with pytest.raises(TimestepError, match="not in the schedule"):
        world.call(served, *world.at(world.timesteps[0] + 0.25))


@pytest.mark.parametrize("name", ["sdxl", "sd3"])
def test_another_request_gets_rows_of_its_own_also_step_by_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(name)
    path = world.anatomy.time_path(world.denoiser)
    _, _, rows = world.at(0.0)
    other = Rows({key: t * 1.5 if key in path.request else t for key, t in rows.tensors.items()})
    for limit in (2**28, 0):
        monkeypatch.setattr("quant.layers.time_path.per_request.HELD_BYTES", limit)
        served = world.served("per_request")
        for timestep in world.timesteps[:2]:
            for given in (rows, other, rows):
                wanted = world.call(world.denoiser, *world.at(timestep, rows=given))
                found = world.call(served, *world.at(timestep, rows=given))
                assert (found - wanted).abs().max() <= 2e-6 * wanted.abs().max()
    assert not torch.equal(wanted, world.call(world.denoiser, *world.at(world.timesteps[1], rows=other)))


def test_of_an_unknown_denoiser_nothing_is_taken_for_granted() -> None:
    strange = nn.Sequential(nn.Linear(4, 4))
    anatomy = anatomy_of(strange)
    assert anatomy.roles(strange) == {} and anatomy.splits(strange) == {} and anatomy.stages(strange) == ()
    for ask in (anatomy.time_path, anatomy.bottleneck, anatomy.channels):
        with pytest.raises(RecipeMismatch, match="Sequential"):
            ask(strange)


@pytest.mark.parametrize("name", NAMES)
def test_roles_stages_and_blocks_are_there(name: str) -> None:
    world = World(name)
    names = {each for each, _ in world.denoiser.named_modules()}
    roles = world.anatomy.roles(world.denoiser)
    assert roles.keys() == {"input", "output", "time"} and set(roles["input"] + roles["output"]) <= names
    assert len(world.anatomy.stages(world.denoiser)) >= 3 and set(world.anatomy.stages(world.denoiser)) <= names
    assert world.anatomy.bottleneck(world.denoiser) in names
    assert sum(isinstance(module, world.anatomy.blocks) for module in world.denoiser.modules()) >= 3
    assert world.anatomy.channels(world.denoiser) == world.walk.latents.shape[1]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", ["sdxl", "sd3"])
def test_projections_of_few_bits_are_multiplied_once_a_request(
    name: str, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a calibration in memory: rows were made in floating point before the weights became codes."""
    world = World(name)
    path, served = world.anatomy.time_path(world.denoiser), world.served("per_request")
    exact = [world.call(served, *world.at(timestep)) for timestep in world.timesteps]
    code(served, path, bits)
    serve(served, path, "per_request", world.timesteps, world.anatomy.clock)
    calls: list[nn.Module] = []
    compute = CodedProjection.compute
    monkeypatch.setattr(CodedProjection, "compute", lambda self, x: (calls.append(self), compute(self, x))[1])
    rounded = [world.call(served, *world.at(timestep)) for timestep in world.timesteps]
    assert len(calls) == len(set(calls)) == len(path.projections)
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(rounded, exact, strict=True)]
    assert 0.0 < max(errors) < 0.3
