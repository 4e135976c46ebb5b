"""optimum-quanto: int8 weights and int8 activations with scales from a calibration pass."""

from __future__ import annotations

import torch
from optimum.quanto import Calibration, freeze, qint8, quantize

from benchmarks.baselines.kept import KEPT
from benchmarks.contender import Loaded, Task
from benchmarks.shape import inputs, load_unet

PACKAGES = ("optimum-quanto",)
CALIBRATION_SEEDS = (101, 102)


def load(task: Task) -> Loaded:
    """bfloat16 outside the quantized layers."""
    unet = load_unet(task.shape, torch.bfloat16)
    quantize(unet, weights=qint8, activations=qint8, exclude=list(KEPT))
    with torch.no_grad(), Calibration():
        for seed in CALIBRATION_SEEDS:
            unet(**inputs(task.shape, task.batch, seed, torch.bfloat16))
    freeze(unet)
    arguments = inputs(task.shape, task.batch, task.seed, torch.bfloat16)
    return Loaded(lambda: unet(**arguments, return_dict=False)[0], unet)
