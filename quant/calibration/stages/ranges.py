"""Stage: the ranges of activations, shared by all steps or one for every step."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from contract.stages import FineGrained, LearnedRanges, ObservedRanges, ProgressiveRanges
from quant.calibration import memory
from quant.calibration.progressive import calibrate_progressively
from quant.calibration.ranges import settle, watch
from quant.calibration.reconstruction.each_unit import reconstruct_each_unit
from quant.calibration.reconstruction.reconstruct import Objective
from quant.calibration.trajectories import Samples
from quant.calibration.workbench import BATCH, Workbench

PROMPTS_PER_STEP = 16
"""Trajectories that a table with a row for every step is observed on."""


def apply(bench: Workbench) -> None:
    """Sets all ranges of the student and turns its quantizers on."""
    options, rounding = bench.stages.ranges, bench.stages.rounding
    if isinstance(rounding, FineGrained) and rounding.learn_ranges:  # they came with the rounding
        bench.quantize_inputs(True)
        return
    if isinstance(options, ProgressiveRanges):
        observe_reference(bench, "progressive")
        _journaled(bench, "ranges-progressive", lambda: _progressive(bench, options))
    elif isinstance(options, LearnedRanges):
        _journaled(bench, "ranges-observed", lambda: _observe(bench, "mse"))
        bench.quantize_inputs(True)
        objective = Objective(options.iterations, options.batch, 0.0, options.learning_rate, power=2.4)
        reconstruct_each_unit(bench, "lsq", objective, memory.halted_batches(bench), from_prefix=False)
    else:
        initial(bench, options)
    bench.quantize_inputs(True)


def initial(bench: Workbench, options: ObservedRanges | None = None, stage: str = "ranges") -> None:
    """Observed ranges, as a `stage` that needs some before it can start takes them."""
    chosen = options or ObservedRanges(kind="mse", observed="quantized_weights")
    of_reference = chosen.observed == "reference"
    piece = f"{stage}-{chosen.kind}-{chosen.observed}"
    if of_reference:
        bench.quantize_weights(False)
    _journaled(bench, piece, lambda: _observe(bench, chosen.kind))
    bench.quantize_weights(True)


def observe_reference(bench: Workbench, stage: str) -> None:
    """The smallest and largest values of the reference, for every group: where a `stage` starts that goes on from
    there."""
    initial(bench, ObservedRanges(), stage)


def prompts_needed(bench: Workbench) -> int:
    """Trajectories that this stage observes."""
    options = bench.stages.ranges
    if isinstance(options, ProgressiveRanges):
        return min(options.prompts, len(bench.run.prompts))
    return min(PROMPTS_PER_STEP, len(bench.run.prompts)) if len(bench.groups) > 1 else 1


def _progressive(bench: Workbench, options: ProgressiveRanges) -> None:
    bench.quantize_inputs(True)
    calibrate_progressively(bench, options.prompts, options.observer, options.passes)
    bench.quantize_inputs(False)


def _observe(bench: Workbench, kind: str) -> None:
    inputs = list(batches(bench))
    with torch.no_grad(), bench.float_inputs(), watch(bench.quantizers, kind) as found:
        for done, batch in enumerate(inputs, 1):
            bench.call(bench.student, batch)
            bench.progress("ranges", done, len(inputs))
    settle(bench.quantizers, found, list(range(len(bench.groups))))


def batches(bench: Workbench) -> Iterator[Samples]:
    """The samples for a shared range; whole trajectories, step by step, for a table over the steps."""
    if len(bench.groups) == 1:
        yield from bench.picked.batches(BATCH)
        return
    count = min(bench.drawn.latents.shape[0], prompts_needed(bench))
    for step in range(bench.drawn.latents.shape[1]):
        yield from bench.drawn.pick(tuple((i, step) for i in range(count))).batches(BATCH)


def _journaled(bench: Workbench, piece: str, work: Callable[[], None]) -> None:
    def run() -> dict[str, Tensor]:
        work()
        return tables(bench)

    for key, tensor in bench.journal.once(piece, run).items():
        name, _, part = key.rpartition(".")
        getattr(bench.quantizers[name], part).data.copy_(tensor)


def tables(bench: Workbench) -> dict[str, Tensor]:
    """All input tables, by quantizer."""
    return {
        f"{name}.{part}": getattr(quantizer, part)
        for name, quantizer in bench.quantizers.items()
        for part in ("scale", "zero_point", "bits", "log_change")
    }
