"""Stage: trajectories of the calibration prompts, and which of their states weights and ranges are fitted to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from contract.stages import EveryStep, LastSteps, NormalSteps, Tdac, UniformSteps
from quant.calibration import selection
from quant.calibration.stages import ranges
from quant.calibration.trajectories import Trajectories, record
from quant.calibration.workbench import Workbench
from quant.conditioning import Conditioning
from quant.discovery import anatomy_of
from quant.layers.calls import bound
from quant.sampling.walk import denoise_with


def apply(bench: Workbench) -> None:
    """Draws the calibration prompts with the reference, or with the quantized model as it is, and picks samples."""
    _draw(bench, bench.reference, "reference")
    if bench.stages.inputs.trajectory == "quantized":
        ranges.observe_reference(bench, "inputs")
        bench.quantize_inputs(True)
        _draw(bench, bench.student, "quantized")
        bench.quantize_inputs(False)


def _draw(bench: Workbench, denoiser: nn.Module, name: str) -> None:
    drawn = _record(bench, denoiser, name)
    with bench.seeded("calibration-inputs") as generator:
        bench.draw(drawn, drawn.pick(_select(bench, drawn, generator)))


def _record(bench: Workbench, denoiser: nn.Module, name: str) -> Trajectories:
    walks = bench.run.walks(bench.pipeline, _prompts(bench))

    def work() -> dict[str, Tensor]:
        denoise = denoise_with(bench.pipeline, denoiser)
        found = record(walks, denoise, lambda done, total: bench.progress("trajectories", done, total))
        return {"latents": found.latents}

    latents = bench.journal.once(f"trajectories-{name}", work)["latents"]
    conditioning = Conditioning.together([walk.conditioning for walk in walks])
    return Trajectories(latents, torch.tensor(walks[0].timesteps), conditioning)


def _prompts(bench: Workbench) -> int:
    """As many as are needed, of those there are."""
    options, available = bench.stages.inputs, len(bench.run.prompts)
    if isinstance(options, EveryStep):
        return min(max(options.prompts, ranges.prompts_needed(bench)), available)
    if isinstance(options, UniformSteps):
        return min(max(options.prompts_per_step, ranges.prompts_needed(bench)), available)
    return available


def _select(bench: Workbench, drawn: Trajectories, generator: torch.Generator) -> selection.Selection:
    options = bench.stages.inputs
    count, steps = drawn.latents.shape[:2]
    if isinstance(options, UniformSteps):
        return selection.uniform(count, steps, options.steps, min(options.prompts_per_step, count))
    if isinstance(options, NormalSteps):
        train = int(bench.pipeline.scheduler.config.num_train_timesteps)
        distribution = selection.TimestepNormal(options.mean, options.std)
        return selection.normal(count, drawn.timesteps.tolist(), train, options.samples, generator, distribution)
    if isinstance(options, Tdac):
        features = bottleneck_features(bench, drawn, options.feature_prompts)
        return selection.tdac(features, count, options.diversity_weight, options.density_radius, generator)
    if isinstance(options, LastSteps):
        return selection.last_steps(count, steps, options.steps)
    return selection.every_step(min(options.prompts, count), steps)


@torch.no_grad()
def bottleneck_features(bench: Workbench, drawn: Trajectories, prompts: int) -> Tensor:
    """What goes into the denoiser's bottleneck, float32 [T, N, C, h, w], tokens being [T, N, C, L, 1], for the first
    `prompts` trajectories and all their guidance branches (EDA-DM, arXiv 2401.04585)."""
    module = bench.reference.get_submodule(anatomy_of(bench.reference).bottleneck(bench.reference))
    seen: list[Tensor] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states: Tensor = bound(module, args, kwargs)["hidden_states"]
        seen.append((states if states.ndim == 4 else states.transpose(1, 2)[..., None]).float())

    handle = module.register_forward_pre_hook(note, with_kwargs=True)
    try:
        count = min(prompts, drawn.latents.shape[0])
        for step in range(drawn.latents.shape[1]):
            bench.call(bench.reference, drawn.pick(tuple((i, step) for i in range(count))))
    finally:
        handle.remove()
    return torch.stack(seen)
