"""Stage: how many bits the weights of every layer have."""

from __future__ import annotations

from contract.stages import SensitiveBits, UniformBits
from quant.calibration.bench import Bench
from quant.calibration.bit_allocation import greedy, integer_programme
from quant.calibration.probe import Probe
from quant.calibration.stage import Kinds, Stage
from quant.calibration.trajectories import Drawn
from quant.calibration.weight_sensitivity import weight_sensitivities


class _Sensitive(Stage[SensitiveBits]):
    """Gives the layers that the output is most sensitive to more bits, within the recipe's budget."""

    def seconds(self, options: SensitiveBits, probe: Probe) -> float:
        states = min(options.prompts, probe.prompts) * min(options.steps, probe.steps)
        return probe.seconds * states * probe.branches * (2 * probe.layers + 1)

    def apply(self, options: SensitiveBits, bench: Bench, drawn: Drawn) -> None:
        base, lifted = bench.recipe.weight_bits, options.lifted_bits
        if lifted <= base:  # nothing to lift to
            return
        measured = weight_sensitivities(bench, drawn, (base, lifted), options)
        chosen = (
            greedy(measured, base, lifted, options.extra_bits)
            if options.kind == "greedy"
            else integer_programme(measured, base, options.extra_bits)
        )
        for name, bits in chosen.items():
            bench.student.layers[name].weight_bits = bits


STAGE = Kinds({UniformBits: Stage(), SensitiveBits: _Sensitive()})
