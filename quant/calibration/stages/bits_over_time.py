"""Stage: activation bits over the steps of the sampler (activation relaxing, PCR, arXiv 2311.06322)."""

from __future__ import annotations

import torch
from torch import Tensor

from contract.stages import RelaxedInputs, RelaxedSteps, RelaxedWindow, SameBits
from quant.calibration.bench import Bench
from quant.calibration.input_sensitivity import PROBES, input_sensitivities
from quant.calibration.observed import observe_reference
from quant.calibration.probe import TRAINED, Probe
from quant.calibration.stage import Kinds, Stage
from quant.calibration.trajectories import Drawn, final_latents


class _Window(Stage[RelaxedWindow]):
    """Gives the groups of the steps in a window more bits; ranges are set at their own bits afterwards."""

    def apply(self, options: RelaxedWindow, bench: Bench, drawn: Drawn) -> None:
        _set_bits(bench, window(len(bench.timesteps), options.start, options.end), options.bits)


class _Automatic(Stage[RelaxedSteps]):
    """Our rule: windows side by side, each alone in floating point; the one after which the final latents are nearest
    to the reference's."""

    def seconds(self, options: RelaxedSteps, probe: Probe) -> float:
        windows = -(-probe.steps // max(round(probe.steps * options.width), 1))
        return probe.drawing(min(options.prompts, probe.prompts)) * (windows + 1)

    def apply(self, options: RelaxedSteps, bench: Bench, drawn: Drawn) -> None:
        steps = len(bench.timesteps)
        width = max(round(steps * options.width), 1)
        windows = [list(range(start, min(start + width, steps))) for start in range(0, steps, width)]

        def work() -> dict[str, Tensor]:
            observe_reference(bench, drawn, "relaxed")
            bench.student.quantize_inputs(True)
            errors = _errors(bench, windows, options.prompts)
            bench.student.quantize_inputs(False)
            return {"errors": torch.tensor(errors)}

        best = int(bench.journal.once("relaxed-windows", work)["errors"].argmin())
        _set_bits(bench, windows[best], options.bits)


class _Sensitive(Stage[RelaxedInputs]):
    """Our rule: the inputs at steps that cost the final latents most, weights being in floating point."""

    def seconds(self, options: RelaxedInputs, probe: Probe) -> float:
        pictures = min(options.prompts, probe.trajectories)
        return probe.drawing(pictures) * (probe.steps / 2 + 2 + PROBES * (TRAINED - 1))

    def apply(self, options: RelaxedInputs, bench: Bench, drawn: Drawn) -> None:
        def work() -> dict[str, Tensor]:
            observe_reference(bench, drawn, "relaxed")
            bench.student.quantize_weights(False)
            bench.student.quantize_inputs(True)
            costs = input_sensitivities(bench, drawn, options.prompts)
            bench.student.quantize_inputs(False)
            return {"sensitivities": costs}

        costs = bench.journal.once("relaxed-inputs", work)["sensitivities"]
        bench.student.quantize_weights(True)
        raise_bits(bench, costs, options.share, options.bits)


STAGE = Kinds({SameBits: Stage(), RelaxedWindow: _Window(), RelaxedSteps: _Automatic(), RelaxedInputs: _Sensitive()})


def window(steps: int, start: float, end: float) -> list[int]:
    """The steps from int(T start) to int(T end), both included and the last step being T - 1: as PCR's code counts.

    >>> window(50, 0.8, 1.0)
    [40, 41, 42, 43, 44, 45, 46, 47, 48, 49]
    """
    return list(range(int(steps * start), min(int(steps * end), steps - 1) + 1))


def raise_bits(bench: Bench, sensitivities: Tensor, share: float, bits: int) -> None:
    """Gives `bits` to a share of all inputs at steps, those that cost most [quantizers, steps]; one at least, and none
    that costs nothing."""
    count = min(max(round(share * sensitivities.numel()), 1), int((sensitivities > 0.0).sum()))
    groups = [bench.groups.nearest(timestep) for timestep in bench.timesteps]
    quantizers = list(bench.student.quantizers.values())
    for pair in sensitivities.flatten().topk(count).indices.tolist():
        quantizer, step = divmod(pair, sensitivities.shape[1])
        quantizers[quantizer].bits[groups[step]] = bits


def _errors(bench: Bench, windows: list[list[int]], prompts: int) -> list[float]:
    """The mean squared error of the final latents with each window alone in floating point."""
    base, count = bench.recipe.activation_bits, min(prompts, len(bench.run.prompts))
    truth = final_latents(bench.walks(count), bench.denoise(bench.reference))
    errors: list[float] = []
    for done, steps in enumerate(windows, 1):
        _set_bits(bench, steps, 16)
        latents = final_latents(bench.walks(count), bench.denoise(bench.student.denoiser))
        errors.append(float((latents - truth).pow(2).mean()))
        _set_bits(bench, steps, base)
        note = f"steps {steps[0]} to {steps[-1]}: {errors[-1]:.3g}"
        bench.progress("windows of steps", done, len(windows), note)
    return errors


def _set_bits(bench: Bench, steps: list[int], bits: int) -> None:
    timesteps = bench.timesteps
    groups = {bench.groups.nearest(timesteps[step]) for step in steps}
    for quantizer in bench.student.quantizers.values():
        for group in groups:
            quantizer.bits[group] = bits
