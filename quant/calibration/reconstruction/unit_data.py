"""What a unit is reconstructed on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from quant.calibration.arithmetic import autocast
from quant.calibration.bench import Bench
from quant.calibration.reconstruction.halted import Call, Passes
from quant.calibration.reconstruction.units import Arguments
from quant.calibration.run import BATCH
from quant.calibration.trajectories import Samples


@dataclass(frozen=True)
class UnitData:
    """What a unit is reconstructed on, over M samples: arguments as the quantized prefix and as the reference gives
    them, the reference's outputs [M, ...], and the samples."""

    quantized: Arguments
    reference: Arguments
    outputs: tuple[Tensor, ...]
    samples: Samples


class Collector:
    """Collects the data of units, asked for in running order, on samples; a context. As many batches as the bench lets
    halt wait in the middle of the denoisers; the others start anew for every unit.

    Without `from_prefix` the reference's arguments stand for those of the quantized prefix; unless `both` are needed,
    those of the prefix stand for the reference's."""

    def __init__(
        self, bench: Bench, samples: Samples, units: Sequence[str], *, from_prefix: bool = True, both: bool = True
    ) -> None:
        self._samples, self._both = samples, both

        def passes(denoiser: nn.Module) -> Passes:
            return Passes(denoiser, units, _calls(bench, denoiser, samples), bench.halted)

        self._reference = passes(bench.reference)
        self._student = passes(bench.student.denoiser) if from_prefix else None

    def data(self, unit: str) -> UnitData:
        """The data of one unit, whose layers and those before it are as they are now."""
        reference, outputs = self._reference.inputs_and_outputs(unit)
        quantized = reference if self._student is None else self._student.inputs(unit)
        return UnitData(quantized, reference if self._both else quantized, outputs, self._samples)

    def __enter__(self) -> Collector:
        return self

    def __exit__(self, *_: Any) -> None:
        self._reference.close()
        if self._student is not None:
            self._student.close()


def _calls(bench: Bench, denoiser: nn.Module, samples: Samples) -> list[Call]:
    return [
        Call(partial(_run, bench, denoiser, batch), partial(bench.select, batch)) for batch in samples.batches(BATCH)
    ]


def _run(bench: Bench, denoiser: nn.Module, batch: Samples) -> None:
    with autocast():
        bench.call(denoiser, batch)
