"""Stage: trajectories of the calibration prompts, and which of their states weights and ranges are fitted to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from contract.stages import EveryStep, LastSteps, NormalSteps, Option, Tdac, UniformSteps
from contract.stages.inputs import Inputs, SampleChoice
from quant.calibration import selection
from quant.calibration.bench import Bench
from quant.calibration.observed import observe_reference
from quant.calibration.probe import Probe
from quant.calibration.selection import Selection
from quant.calibration.stage import Kinds, Stage
from quant.calibration.trajectories import Drawn, Trajectories, record
from quant.conditioning import Conditioning
from quant.discovery import anatomy_of
from quant.errors import RecipeMismatch
from quant.layers.calls import bound


def draw(options: Inputs, bench: Bench) -> Drawn:
    """Draws the calibration prompts with the reference, or with the quantized model as it is, and picks samples."""
    drawn = _draw(options, bench, bench.reference, "reference")
    if options.trajectory == "reference":
        return drawn
    observe_reference(bench, drawn, "inputs")
    bench.student.quantize_inputs(True)
    drawn = _draw(options, bench, bench.student.denoiser, "quantized")
    bench.student.quantize_inputs(False)
    return drawn


def _draw(options: Inputs, bench: Bench, denoiser: nn.Module, name: str) -> Drawn:
    trajectories = _record(options, bench, denoiser, name)
    with bench.seeded("calibration-inputs") as generator:
        chosen = _SELECT[type(options)](options, bench, trajectories, generator)
    return Drawn(trajectories, trajectories.pick(chosen))


def _record(options: Inputs, bench: Bench, denoiser: nn.Module, name: str) -> Trajectories:
    """As many prompts as are needed, here and for ranges, of those there are."""
    available = len(bench.run.prompts)
    observed = bench.stages.ranges.trajectories(available, len(bench.groups))
    walks = bench.walks(max(options.trajectories(available), observed))

    def work() -> dict[str, Tensor]:
        tell = bench.progress
        recorded = record(walks, bench.denoise(denoiser), lambda done, total: tell("trajectories", done, total))
        return {"latents": recorded.latents}

    latents = bench.journal.once(f"trajectories-{name}", work)["latents"]
    conditioning = Conditioning.together([walk.conditioning for walk in walks])
    return Trajectories(latents, torch.tensor(walks[0].timesteps), conditioning)


def _uniform(options: UniformSteps, bench: Bench, drawn: Trajectories, _: torch.Generator) -> Selection:
    count, steps = drawn.latents.shape[:2]
    return selection.uniform(count, steps, options.steps, options.trajectories(count))


def _normal(options: NormalSteps, bench: Bench, drawn: Trajectories, generator: torch.Generator) -> Selection:
    train = int(bench.pipeline.scheduler.config.num_train_timesteps)
    distribution = selection.TimestepNormal(options.mean, options.std)
    count, timesteps = drawn.latents.shape[0], drawn.timesteps.tolist()
    return selection.normal(count, timesteps, train, options.samples, generator, distribution)


def _tdac(options: Tdac, bench: Bench, drawn: Trajectories, generator: torch.Generator) -> Selection:
    features = bottleneck_features(bench, drawn, options.feature_prompts)
    count = drawn.latents.shape[0]
    return selection.tdac(features, count, options.diversity_weight, options.density_radius, generator)


def _every_step(options: EveryStep, bench: Bench, drawn: Trajectories, _: torch.Generator) -> Selection:
    count, steps = drawn.latents.shape[:2]
    return selection.every_step(options.trajectories(count), steps)


def _last_steps(options: LastSteps, bench: Bench, drawn: Trajectories, _: torch.Generator) -> Selection:
    count, steps = drawn.latents.shape[:2]
    return selection.last_steps(count, steps, options.steps)


_SELECT: dict[type[Option], Callable[[Any, Bench, Trajectories, torch.Generator], Selection]] = {
    UniformSteps: _uniform,
    NormalSteps: _normal,
    Tdac: _tdac,
    EveryStep: _every_step,
    LastSteps: _last_steps,
}


@torch.no_grad()
def bottleneck_features(bench: Bench, drawn: Trajectories, prompts: int) -> Tensor:
    """What goes into the denoiser's bottleneck, float32 [T, N, C, h, w], tokens being [T, N, C, L, 1], for the first
    `prompts` trajectories and all their guidance branches (EDA-DM, arXiv 2401.04585)."""
    module = bench.reference.get_submodule(anatomy_of(bench.reference).bottleneck(bench.reference))
    inputs: list[Tensor] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states: Tensor = bound(module, args, kwargs)["hidden_states"]
        inputs.append((states if states.ndim == 4 else states.transpose(1, 2)[..., None]).float())

    handle = module.register_forward_pre_hook(note, with_kwargs=True)
    try:
        count, steps = min(prompts, drawn.latents.shape[0]), drawn.latents.shape[1]
        for step in range(steps):
            bench.call(bench.reference, drawn.pick(tuple((i, step) for i in range(count))))
    finally:
        handle.remove()
    return torch.stack(inputs)


class _Inputs(Stage[SampleChoice]):
    """What `draw` takes; it is called first, since all other stages work on what it gives."""

    def seconds(self, options: SampleChoice, probe: Probe) -> float:
        times = 1 if options.trajectory == "reference" else 3
        return times * probe.drawing(probe.trajectories)


class _Tdac(_Inputs):
    """Needs a bottleneck, and a prompt for every timestep: some samplers have more of those than steps."""

    def check(self, options: SampleChoice, bench: Bench) -> None:
        anatomy_of(bench.reference).bottleneck(bench.reference)
        prompts, timesteps = len(bench.run.prompts), len(bench.timesteps)
        if prompts < timesteps:
            raise RecipeMismatch(
                f"TDAC takes one sample of every prompt: {prompts} prompts cannot cover the {timesteps} timesteps of "
                f"{type(bench.pipeline.scheduler).__name__}"
            )


_INPUTS = _Inputs()
STAGE = Kinds({UniformSteps: _INPUTS, NormalSteps: _INPUTS, Tdac: _Tdac(), EveryStep: _INPUTS, LastSteps: _INPUTS})
