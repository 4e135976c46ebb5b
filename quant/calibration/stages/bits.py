"""Stage: how many bits the weights of every layer have."""

from __future__ import annotations

import torch
from torch import Tensor

from contract.stages import SensitiveBits, UniformBits
from quant.calibration.bit_allocation import Candidate, greedy, integer_programme, ranking, sqnr
from quant.calibration.trajectories import Samples
from quant.calibration.workbench import Workbench
from quant.quantizers.weight import mse_scale

TRAINED_SHARE = 0.25
"""Share of the layers that selective freezing leaves trainable when only sensitive ones are."""


def apply(bench: Workbench) -> None:
    """Gives the layers that the output is most sensitive to more bits, within the recipe's budget."""
    options, base = bench.stages.bits, bench.recipe.weight_bits
    if isinstance(options, UniformBits) or options.lifted_bits <= base:  # nothing to lift to
        return
    measured = _sensitivities(bench, (base, options.lifted_bits), options)
    chosen = (
        greedy(measured, base, options.lifted_bits, options.extra_bits)
        if options.kind == "greedy"
        else integer_programme(measured, base, options.extra_bits)
    )
    for name, bits in chosen.items():
        bench.layers[name].weight_bits = bits


def most_sensitive(bench: Workbench) -> frozenset[str]:
    """The quarter of the layers whose quantization the output notices most."""
    base = bench.recipe.weight_bits
    kept = {name: (layer.weight_bits, layer.weight_quantized) for name, layer in bench.layers.items()}
    measured = _sensitivities(bench, (base,), SensitiveBits(kind="greedy"))
    for name, (bits, quantized) in kept.items():
        bench.layers[name].weight_bits, bench.layers[name].weight_quantized = bits, quantized
    order = [name for name, _ in ranking(measured, base, base + 1)]
    return frozenset(order[: max(round(len(order) * TRAINED_SHARE), 1)])


@torch.no_grad()
def _sensitivities(bench: Workbench, widths: tuple[int, ...], options: SensitiveBits) -> list[Candidate]:
    """The SQNR of the guided output when one layer's weight has some bits and everything else is floating point.

    Layers with their own bits in the recipe stay as they are."""
    own = {name for name, layer in bench.layers.items() if layer.weight_bits != bench.recipe.weight_bits}
    layers = {name: layer for name, layer in bench.layers.items() if name not in own}
    states = _states(bench, options)

    def work() -> dict[str, Tensor]:
        with bench.float_inputs():
            bench.quantize_weights(False)
            reference = bench.guided(bench.student, states)  # not autocast: bfloat16 hides a layer
            found = []
            for done, layer in enumerate(layers.values(), 1):
                scale, bits = layer.weight_scale.data, layer.weight_bits
                layer.weight_quantized = True
                for width in widths:
                    layer.weight_bits, layer.weight_scale.data = width, mse_scale(layer.weight, width)
                    found.append(sqnr(reference, bench.guided(bench.student, states)))
                layer.weight_quantized, layer.weight_bits, layer.weight_scale.data = False, bits, scale
                bench.progress("sensitivity", done, len(layers))
        return {"sqnr": torch.tensor(found, dtype=torch.float64).view(len(layers), len(widths))}

    piece = f"sensitivity-{'-'.join(map(str, widths))}"
    table = bench.journal.once(piece, work)["sqnr"].tolist()
    return [
        Candidate(name, width, layer.weight.numel(), value)
        for (name, layer), row in zip(layers.items(), table, strict=True)
        for width, value in zip(widths, row, strict=True)
    ]


def _states(bench: Workbench, options: SensitiveBits) -> Samples:
    count, steps = bench.drawn.latents.shape[:2]
    prompts, wanted = min(options.prompts, count), min(options.steps, steps)
    return bench.drawn.pick(tuple((i, k * steps // wanted) for k in range(wanted) for i in range(prompts)))
