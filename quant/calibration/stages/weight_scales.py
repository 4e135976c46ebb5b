"""Stage: the step of every output channel of every weight."""

from __future__ import annotations

from quant.calibration.workbench import Workbench
from quant.quantizers.weight import minmax_scale, mse_scale


def apply(bench: Workbench) -> None:
    """Sets the student's weight scales by the largest weight of a channel, or by least error."""
    scale_of = {"minmax": minmax_scale, "mse": mse_scale}[bench.stages.weight_scales.kind]

    def work() -> dict:  # type: ignore[type-arg]
        for done, layer in enumerate(bench.layers.values(), 1):
            layer.weight_scale.data = scale_of(layer.weight, layer.weight_bits)
            bench.progress("weight scales", done, len(bench.layers))
        return {name: layer.weight_scale for name, layer in bench.layers.items()}

    for name, scale in bench.journal.once("weight-scales", work).items():
        bench.layers[name].weight_scale.data = scale
    bench.quantize_weights(True)
