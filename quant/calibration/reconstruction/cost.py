"""What the reconstruction of a whole denoiser costs, unit after unit."""

from __future__ import annotations

from quant.calibration.probe import FLOAT, KEPT_FOR_BACKWARD, Probe


def memory(probe: Probe, batch: int) -> int:
    """Bytes of the inputs and outputs of one unit over all samples, in three forms, and of a minibatch in training."""
    return FLOAT * probe.widest_unit * (3 * probe.samples + KEPT_FOR_BACKWARD * batch * 4)


def seconds(probe: Probe, iterations: int, batch: int) -> float:
    """To pass all samples through both denoisers and to train every unit."""
    return 2 * probe.seconds * probe.samples + probe.training(iterations, batch)
