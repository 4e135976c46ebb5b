"""Reconstruction of a whole denoiser: unit after unit, in the order in which data passes through them."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from quant.calibration.workbench import BATCH, Workbench
from quant.reconstruction.reconstruct import Objective, UnitData, reconstruct
from quant.reconstruction.units import Unit, capture, find_units


def reconstruct_each_unit(
    bench: Workbench, stage: str, objective: Objective, *, blocks: bool = True, from_prefix: bool = True
) -> None:
    """Reconstructs the student's units in place on the calibration samples. Units are residual blocks and the layers
    between them, or, without `blocks`, single layers; they read what the quantized prefix gives, or, without
    `from_prefix`, the reference's values. Inputs and outputs of one unit at a time are in memory."""
    samples = bench.picked
    units = find_units(bench.student, lambda: bench.call(bench.student, samples[slice(0, 1)]), blocks=blocks)
    for done, unit in enumerate(units, 1):
        piece, notes = f"{stage}-{done:04d}", [unit.name]
        inside = f"{stage}, unit {done} of {len(units)}"
        work = partial(_reconstruct, bench, unit, objective, piece, notes, inside, from_prefix=from_prefix)
        bench.restore(bench.journal.once(piece, work))
        bench.progress(stage, done, len(units), ": ".join(notes))


def _reconstruct(
    bench: Workbench, unit: Unit, objective: Objective, piece: str, notes: list[str], stage: str, *, from_prefix: bool
) -> dict[str, Tensor]:
    """One unit's parameters afterwards; its loss is noted."""
    data = _data(bench, unit, objective, from_prefix=from_prefix)

    def tell(done: int, loss: float) -> None:
        bench.progress(stage, done, objective.iterations, f"{unit.name}: loss {loss:.3g}")

    with bench.seeded(piece) as generator:
        own = bench.reference.get_submodule(unit.name)
        loss = reconstruct(unit, own, data, objective, bench.select, generator, tell)
    notes.append(f"loss {loss:.3g}")
    return bench.parameters_of([f"{unit.name}.{inner}".rstrip(".") for inner in unit.layers])


def _data(bench: Workbench, unit: Unit, objective: Objective, *, from_prefix: bool) -> UnitData:
    samples = bench.picked

    def call(denoiser: nn.Module, rows: slice) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return bench.call(denoiser, samples[rows])

    reference, output = capture(bench.reference, unit.name, call, len(samples), BATCH)
    quantized = reference
    if from_prefix:
        quantized, _ = capture(bench.student, unit.name, call, len(samples), BATCH, outputs=False)
    needs_both = objective.drop > 0.0 or objective.gamma > 0.0
    return UnitData(quantized, reference if needs_both else quantized, output, samples.timesteps)
