"""Stage: the step of every output channel of every weight."""

from __future__ import annotations

from torch import Tensor

from contract.stages import WeightScales
from quant.calibration.bench import Bench
from quant.calibration.stage import Stage
from quant.calibration.trajectories import Drawn
from quant.quantizers.weight import minmax_scale, mse_scale

_SCALES = {"minmax": minmax_scale, "mse": mse_scale}


class _WeightScales(Stage[WeightScales]):
    """Sets the student's weight scales by the largest weight of a channel, or by least error."""

    def apply(self, options: WeightScales, bench: Bench, drawn: Drawn) -> None:
        layers = bench.student.layers

        def work() -> dict[str, Tensor]:
            for done, layer in enumerate(layers.values(), 1):
                layer.weight_scale.data = _SCALES[options.kind](layer.weight, layer.weight_bits)
                bench.progress("weight scales", done, len(layers))
            return {name: layer.weight_scale for name, layer in layers.items()}

        for name, scale in bench.journal.once("weight-scales", work).items():
            layers[name].weight_scale.data = scale
        bench.student.quantize_weights(True)


STAGE = _WeightScales()
