"""How much a picture notices that the input of one layer is quantized at one step."""

from __future__ import annotations

import torch
from torch import Tensor

from quant.calibration.workbench import BATCH, Workbench
from quant.quantizers.activation import FLOAT_BITS


@torch.no_grad()
def input_sensitivities(bench: Workbench, prompts: int) -> Tensor:
    """By how much the squared error of the final latents falls, to first order, when one input stays in floating point
    at one step: float64 [quantizers, steps], inputs in the order of `bench.quantizers`, whose ranges must be set.

    The error of the guided output is measured on the first `prompts` calibration trajectories, at all steps in one
    pass for every input, and weighed by how far it moves the final latents through the sampler alone."""
    count, steps = min(prompts, bench.drawn.latents.shape[0]), bench.drawn.latents.shape[1]
    states = bench.drawn.pick(tuple((i, k) for i in range(count) for k in range(steps)))
    wanted = bench.guided(bench.reference, states).unflatten(0, (count, steps))
    walk = bench.inputs.walks(bench.pipeline, min(count, BATCH // 2))[0]
    weights = walk.influence(wanted[: len(walk.start)]).square()

    def errors() -> Tensor:
        output = bench.guided(bench.student, states).unflatten(0, (count, steps))
        return (output - wanted).double().square().flatten(2).sum(dim=2).mean(dim=0)

    whole, found = errors(), []
    for done, (name, quantizer) in enumerate(bench.quantizers.items(), 1):
        bits = quantizer.bits.clone()
        quantizer.bits.fill_(FLOAT_BITS)
        found.append((whole - errors()) * weights)
        quantizer.bits.copy_(bits)
        bench.progress("sensitive inputs", done, len(bench.quantizers), name)
    return torch.stack(found)
