"""What a calibration will take, told before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from quant.calibration.bench import Bench
from quant.calibration.probe import FLOAT, Probe, probe
from quant.calibration.run import BATCH
from quant.calibration.stage import stages
from quant.engine.memory import available_bytes
from quant.errors import NotEnoughMemory


@dataclass(frozen=True)
class Estimate:
    """Bytes at most and seconds, about; and how many batches of samples may stay halted in the middle of both denoisers
    while units are reconstructed, each keeping at most the outputs of all units."""

    bytes: int
    seconds: float
    halted: int

    def __str__(self) -> str:
        minutes = self.seconds / 60
        length = f"{minutes:.0f} min" if minutes >= 2 else f"{self.seconds:.0f} s"
        return f"about {length}, {self.bytes / 2**30:.1f} GiB"


def check(bench: Bench) -> Estimate:
    """What all stages take together, once none of them refuses this model. Raises what they raise, and NotEnoughMemory
    where the machine has less."""
    chosen = [(stages()[name], options) for name, options in bench.stages.options().items()]
    for stage, options in chosen:
        stage.check(options, bench)
    measured = probe(bench)
    needed = _always(measured) + max(stage.memory(options, measured) for stage, options in chosen)
    available = available_bytes()
    if available is not None and needed > available:
        raise NotEnoughMemory(
            f"this calibration needs about {needed / 2**30:.1f} GiB, {available / 2**30:.1f} GiB are available: "
            "ask for fewer calibration prompts or smaller batches"
        )
    seconds = sum(stage.seconds(options, measured) for stage, options in chosen)
    free = 0 if available is None else available - needed
    return Estimate(needed, seconds, free // max(2 * FLOAT * BATCH * measured.unit_outputs, 1))


def _always(measured: Probe) -> int:
    """Bytes of the student, the trajectories and one batch that passes."""
    trajectories = measured.prompts * measured.steps * measured.latents * FLOAT
    return measured.weights + trajectories + FLOAT * BATCH * measured.widest_unit * 4
