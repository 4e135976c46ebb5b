"""How much the guided output notices that the weights of one layer are quantized."""

from __future__ import annotations

import torch
from torch import Tensor

from contract.stages import SensitiveBits
from quant.calibration.bench import Bench
from quant.calibration.bit_allocation import Candidate, ranking, sqnr
from quant.calibration.trajectories import Drawn, Samples
from quant.quantizers.weight import mse_scale

TRAINED_SHARE = 0.25
"""Share of the layers that selective freezing leaves trainable when only sensitive ones are."""


@torch.no_grad()
def weight_sensitivities(
    bench: Bench, drawn: Drawn, widths: tuple[int, ...], options: SensitiveBits
) -> list[Candidate]:
    """The SQNR of the guided output when one layer's weight has some bits and everything else is floating point: layer
    after layer, for all `widths` of each. Leaves every weight of the student in floating point.

    Layers with their own bits in the recipe stay as they are and are not measured."""
    student = bench.student
    layers = {n: layer for n, layer in student.layers.items() if layer.weight_bits == bench.recipe.weight_bits}
    states = _states(drawn, options)

    def work() -> dict[str, Tensor]:
        with student.float_inputs():
            student.quantize_weights(False)
            reference = bench.guided(student.denoiser, states)  # not autocast: bfloat16 hides a layer
            ratios = []
            for done, layer in enumerate(layers.values(), 1):
                scale, bits = layer.weight_scale.data, layer.weight_bits
                layer.weight_quantized = True
                for width in widths:
                    layer.weight_bits, layer.weight_scale.data = width, mse_scale(layer.weight, width)
                    ratios.append(sqnr(reference, bench.guided(student.denoiser, states)))
                layer.weight_quantized, layer.weight_bits, layer.weight_scale.data = False, bits, scale
                bench.progress("sensitivity", done, len(layers))
        return {"sqnr": torch.tensor(ratios, dtype=torch.float64).view(len(layers), len(widths))}

    piece = f"sensitivity-{'-'.join(map(str, widths))}"
    table = bench.journal.once(piece, work)["sqnr"].tolist()
    return [
        Candidate(name, width, layer.weight.numel(), value)
        for (name, layer), row in zip(layers.items(), table, strict=True)
        for width, value in zip(widths, row, strict=True)
    ]


def most_sensitive(bench: Bench, drawn: Drawn) -> frozenset[str]:
    """The quarter of the layers whose quantization the output notices most."""
    base, layers = bench.recipe.weight_bits, bench.student.layers
    before = {name: (layer.weight_bits, layer.weight_quantized) for name, layer in layers.items()}
    measured = weight_sensitivities(bench, drawn, (base,), SensitiveBits(kind="greedy"))
    for name, (bits, quantized) in before.items():
        layers[name].weight_bits, layers[name].weight_quantized = bits, quantized
    order = [name for name, _ in ranking(measured, base, base + 1)]
    return frozenset(order[: max(round(len(order) * TRAINED_SHARE), 1)])


def _states(drawn: Drawn, options: SensitiveBits) -> Samples:
    count, steps = drawn.trajectories.latents.shape[:2]
    prompts, wanted = min(options.prompts, count), min(options.steps, steps)
    return drawn.trajectories.pick(tuple((i, k * steps // wanted) for k in range(wanted) for i in range(prompts)))
