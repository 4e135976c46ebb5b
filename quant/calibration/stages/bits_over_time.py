"""Stage: activation bits over the steps of the sampler (activation relaxing, PCR, arXiv 2311.06322)."""

from __future__ import annotations

import torch
from torch import Tensor

from contract.stages import RelaxedInputs, RelaxedSteps, RelaxedWindow, SameBits
from quant.calibration.input_sensitivity import input_sensitivities
from quant.calibration.stages import ranges
from quant.calibration.trajectories import record
from quant.calibration.workbench import Workbench
from quant.sampling.walk import denoise_with


def apply(bench: Workbench) -> None:
    """Gives the groups of the relaxed steps, or inputs at steps, more bits; ranges are set at their own bits
    afterwards."""
    options = bench.stages.bits_over_time
    if isinstance(options, SameBits):
        return
    steps = len(bench.timesteps)
    if isinstance(options, RelaxedInputs):
        _relax_inputs(bench, options)
        return
    if isinstance(options, RelaxedWindow):
        chosen = window(steps, options.start, options.end)
    else:
        chosen = _best_window(bench, options, steps)
    _set_bits(bench, chosen, options.bits)


def window(steps: int, start: float, end: float) -> list[int]:
    """The steps from int(T start) to int(T end), both included and the last step being T - 1: as PCR's code counts.

    >>> window(50, 0.8, 1.0)
    [40, 41, 42, 43, 44, 45, 46, 47, 48, 49]
    """
    return list(range(int(steps * start), min(int(steps * end), steps - 1) + 1))


def average_bits(base: int, relaxed: int, steps: int, relaxed_steps: int) -> float:
    """The mean over the steps.

    >>> average_bits(8, 10, 50, 10)
    8.4
    """
    return (base * (steps - relaxed_steps) + relaxed * relaxed_steps) / steps


def _best_window(bench: Workbench, options: RelaxedSteps, steps: int) -> list[int]:
    """Our rule: windows side by side, each alone in floating point; the one after which the final latents are nearest
    to the reference's."""
    width = max(round(steps * options.width), 1)
    windows = [list(range(start, min(start + width, steps))) for start in range(0, steps, width)]

    def work() -> dict[str, Tensor]:
        ranges.observe_reference(bench, "relaxed")
        bench.quantize_inputs(True)
        truth = _final(bench, options.prompts, student=False)
        base = bench.recipe.activation_bits
        errors = []
        for done, one in enumerate(windows, 1):
            _set_bits(bench, one, 16)
            errors.append(float((_final(bench, options.prompts, student=True) - truth).pow(2).mean()))
            _set_bits(bench, one, base)
            bench.progress("windows of steps", done, len(windows), f"steps {one[0]} to {one[-1]}: {errors[-1]:.3g}")
        bench.quantize_inputs(False)
        return {"errors": torch.tensor(errors)}

    return windows[int(bench.journal.once("relaxed-windows", work)["errors"].argmin())]


def _relax_inputs(bench: Workbench, options: RelaxedInputs) -> None:
    """Our rule: the inputs at steps that cost the final latents most, weights being in floating point."""

    def work() -> dict[str, Tensor]:
        ranges.observe_reference(bench, "relaxed")
        bench.quantize_weights(False)
        bench.quantize_inputs(True)
        found = input_sensitivities(bench, options.prompts)
        bench.quantize_inputs(False)
        return {"sensitivities": found}

    found = bench.journal.once("relaxed-inputs", work)["sensitivities"]
    bench.quantize_weights(True)
    raise_bits(bench, found, options.share, options.bits)


def raise_bits(bench: Workbench, sensitivities: Tensor, share: float, bits: int) -> None:
    """Gives `bits` to a share of all inputs at steps, those that cost most [quantizers, steps]; one at least, and none
    that costs nothing."""
    count = min(max(round(share * sensitivities.numel()), 1), int((sensitivities > 0.0).sum()))
    groups = [bench.groups.nearest(timestep) for timestep in bench.timesteps]
    quantizers = list(bench.quantizers.values())
    for pair in sensitivities.flatten().topk(count).indices.tolist():
        quantizer, step = divmod(pair, sensitivities.shape[1])
        quantizers[quantizer].bits[groups[step]] = bits


@torch.no_grad()
def _final(bench: Workbench, prompts: int, *, student: bool) -> Tensor:
    walks = bench.run.walks(bench.pipeline, min(prompts, len(bench.run.prompts)))
    record(walks, denoise_with(bench.pipeline, bench.student if student else bench.reference), lambda *_: None)
    return torch.cat([walk.latents for walk in walks])


def _set_bits(bench: Workbench, steps: list[int], bits: int) -> None:
    timesteps = bench.timesteps
    groups = {bench.groups.nearest(timesteps[step]) for step in steps}
    for quantizer in bench.quantizers.values():
        for group in groups:
            quantizer.bits[group] = bits
