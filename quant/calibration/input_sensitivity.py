"""How much a picture notices that the input of one layer is quantized at one step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from quant.calibration.bench import Bench
from quant.calibration.run import BATCH
from quant.calibration.trajectories import Drawn
from quant.layers.trainable.input import InputQuantizer
from quant.sampling.walk import Walk

PROBES = 4
"""Random directions of the output for each state: two digits of a share are not needed to rank thousands."""


def input_sensitivities(bench: Bench, drawn: Drawn, prompts: int) -> Tensor:
    """What one input that is quantized at one step costs the final latents: relative squared error, float64
    [quantizers, steps], inputs in the order of the student's quantizers, whose ranges must be set and which must be on.

    A step's cost is measured on the first `prompts` calibration trajectories, quantized at that step only, and shared
    among its inputs by what each of them does to the guided output."""
    count = min(prompts, drawn.trajectories.latents.shape[0])
    shares = _shares(bench, drawn, count)
    return shares / shares.sum(dim=0).clamp_min(torch.finfo(shares.dtype).tiny) * _costs(bench, count)


@torch.no_grad()
def _costs(bench: Bench, count: int) -> Tensor:
    """Geometric mean over pictures, float64 [steps], so that one that takes another branch does not decide it."""
    student, reference = bench.denoise(bench.student.denoiser), bench.denoise(bench.reference)

    def finish(walk: Walk) -> Tensor:
        while not walk.done:
            walk.advance(reference(*walk.state.rows))
        return walk.latents

    relative: list[Tensor] = []
    for walk in bench.walks(count, batch=BATCH // 2):
        quantized = []
        while not walk.done:
            aside = walk.fork()
            aside.advance(student(*aside.state.rows))
            quantized.append(finish(aside))
            walk.advance(reference(*walk.state.rows))
            bench.progress("sensitive steps", walk.step, len(walk.timesteps))
        truth = walk.latents.double()
        errors = (torch.stack(quantized, dim=1) - truth[:, None]).square().flatten(2).sum(dim=2)
        relative.append(errors / truth.square().flatten(1).sum(dim=1, keepdim=True))
    return torch.cat(relative).clamp_min(1e-12).log().mean(dim=0).exp()


def _shares(bench: Bench, drawn: Drawn, count: int) -> Tensor:
    """The squared error of the guided output that each input's rounding makes, to first order: float64 [quantizers,
    steps].

    For random signs v, (v J n)^2 is on average the squared length of J n, where n is the rounding error and J the
    output's derivative: one backward pass has it for all inputs."""
    branches, steps = bench.branches, drawn.trajectories.latents.shape[1]
    quantizers = bench.student.quantizers
    squared = torch.zeros(len(quantizers), steps, dtype=torch.float64)
    with bench.seeded("sensitive inputs") as generator, torch.enable_grad(), _rounding(quantizers) as moved:
        for step in range(steps):
            output = bench.call(bench.student.denoiser, drawn.trajectories.pick(tuple((i, step) for i in range(count))))
            guided = bench.guide(output.unflatten(0, (count, branches)))
            for _ in range(PROBES):
                signs = torch.randint(2, guided.shape, generator=generator) * 2.0 - 1.0
                guided.backward(signs.to(guided), retain_graph=True)
                for place, name in enumerate(quantizers):
                    squared[place, step] += moved[name].view(count, branches).sum(dim=1).square().mean()
                    moved[name].zero_()
            moved.clear()
            bench.progress("sensitive inputs", step + 1, steps)
    return squared / PROBES


@contextmanager
def _rounding(quantizers: dict[str, InputQuantizer]) -> Iterator[dict[str, Tensor]]:
    """By quantizer, while the context is open: by how much its rounding moves what was probed, float64 [rows]."""
    moved: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def quantized(_: nn.Module, arguments: tuple[Tensor], output: Tensor) -> Tensor:
            error = (output - arguments[0]).detach()
            moved.setdefault(name, torch.zeros(len(output), dtype=torch.float64))

            def probed(gradient: Tensor) -> None:
                moved[name] += (gradient * error).flatten(1).sum(dim=1).double()

            out = output if output.requires_grad else output.detach().requires_grad_()
            out.register_hook(probed)
            return out

        return quantized

    handles = [quantizer.register_forward_hook(watch(name)) for name, quantizer in quantizers.items()]
    try:
        yield moved
    finally:
        for handle in handles:
            handle.remove()
