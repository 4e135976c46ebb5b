"""Ranges of activations as they are seen over the calibration set: where most stages start from."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from contract.stages import ObservedRanges
from quant.calibration.bench import Bench
from quant.calibration.ranges import settle, watch
from quant.calibration.run import BATCH
from quant.calibration.trajectories import Drawn, Samples

LEAST_ERROR = ObservedRanges(kind="mse", observed="quantized_weights")
"""What is learned from, or trained from."""


def observe(bench: Bench, drawn: Drawn, options: ObservedRanges, stage: str = "ranges") -> None:
    """Sets all ranges of the student to what is observed. `stage` is what needs them: the name of the piece in the
    journal. Weights are quantized afterwards, inputs as before."""
    if options.observed == "reference":
        bench.student.quantize_weights(False)
    journaled(bench, f"{stage}-{options.kind}-{options.observed}", lambda: watch_all(bench, drawn, options.kind))
    bench.student.quantize_weights(True)


def observe_reference(bench: Bench, drawn: Drawn, stage: str) -> None:
    """Sets all ranges to the smallest and largest values of the reference: where a `stage` starts that goes on from
    there."""
    observe(bench, drawn, ObservedRanges(), stage)


def watch_all(bench: Bench, drawn: Drawn, kind: str) -> None:
    """Sets all ranges to what an observer of a kind sees of the student as it is, its inputs in floating point."""
    inputs = list(observed_samples(bench, drawn))
    student = bench.student
    with torch.no_grad(), student.float_inputs(), watch(student.quantizers, kind) as observers:
        for done, batch in enumerate(inputs, 1):
            bench.call(student.denoiser, batch)
            bench.progress("ranges", done, len(inputs))
    settle(student.quantizers, observers, list(range(len(bench.groups))))


def observed_samples(bench: Bench, drawn: Drawn) -> Iterator[Samples]:
    """The samples for a shared range, in batches; whole trajectories, step by step, for a table over the steps."""
    if len(bench.groups) == 1:
        yield from drawn.picked.batches(BATCH)
        return
    available, steps = drawn.trajectories.latents.shape[:2]
    needed = bench.stages.ranges.trajectories(len(bench.run.prompts), len(bench.groups))
    for step in range(steps):
        states = tuple((i, step) for i in range(min(available, needed)))
        yield from drawn.trajectories.pick(states).batches(BATCH)


def journaled(bench: Bench, piece: str, work: Callable[[], None]) -> None:
    """Sets ranges by `work`, or to what it set them to when this piece was first finished."""

    def ranges() -> dict[str, Tensor]:
        work()
        return bench.student.ranges

    bench.student.restore_ranges(bench.journal.once(piece, ranges))
