"""Reconstruction of a whole denoiser: unit after unit, in the order in which data passes through them."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from quant.calibration.bench import Bench
from quant.calibration.reconstruction.objective import Objective
from quant.calibration.reconstruction.reconstruct import reconstruct
from quant.calibration.reconstruction.unit_data import Collector
from quant.calibration.reconstruction.units import Unit, find_units
from quant.calibration.trajectories import Drawn


def reconstruct_each_unit(
    bench: Bench, drawn: Drawn, stage: str, objective: Objective, *, blocks: bool = True, from_prefix: bool = True
) -> None:
    """Reconstructs the student's units in place on the calibration samples. Units are residual blocks and the layers
    between them, or, without `blocks`, single layers; they read what the quantized prefix gives, or, without
    `from_prefix`, the reference's values. Inputs and outputs of one unit at a time are in memory, and activations of
    the batches that the bench lets halt."""
    denoiser, first = bench.student.denoiser, drawn.picked[slice(0, 1)]
    units = find_units(denoiser, lambda: bench.call(denoiser, first), blocks=blocks)
    both = objective.drop > 0.0 or objective.gamma > 0.0
    names = [unit.name for unit in units]
    with Collector(bench, drawn.picked, names, from_prefix=from_prefix, both=both) as collector:
        for done, unit in enumerate(units, 1):
            piece, notes = f"{stage}-{done:04d}", [unit.name]
            inside = f"{stage}, unit {done} of {len(units)}"
            work = partial(_reconstruct, bench, unit, objective, collector, piece, notes, inside)
            bench.student.restore(bench.journal.once(piece, work))
            bench.progress(stage, done, len(units), ": ".join(notes))


def _reconstruct(
    bench: Bench, unit: Unit, objective: Objective, collector: Collector, piece: str, notes: list[str], stage: str
) -> dict[str, Tensor]:
    """One unit's parameters afterwards; its loss is noted."""
    data = collector.data(unit.name)

    def tell(done: int, loss: float) -> None:
        bench.progress(stage, done, objective.iterations, f"{unit.name}: loss {loss:.3g}")

    with bench.seeded(piece) as generator:
        own = bench.reference.get_submodule(unit.name)
        loss = reconstruct(unit, own, data, objective, bench.select, generator, tell)
    notes.append(f"loss {loss:.3g}")
    return bench.student.parameters_of([f"{unit.name}.{inner}".rstrip(".") for inner in unit.layers])
