"""Stage: whether every weight is rounded up or down."""

from __future__ import annotations

from contract.stages import AdaRound, FineGrained, Nearest
from quant.calibration.bench import Bench
from quant.calibration.observed import LEAST_ERROR, observe
from quant.calibration.probe import Probe
from quant.calibration.reconstruction.each_unit import reconstruct_each_unit
from quant.calibration.reconstruction.objective import Objective
from quant.calibration.stage import Kinds, Stage
from quant.calibration.trajectories import Drawn


class _AdaRound(Stage[AdaRound]):
    """Optimizes the rounding layer by layer (AdaRound) or block by block (BRECQ), inputs in floating point."""

    def memory(self, options: AdaRound, probe: Probe) -> int:
        return probe.reconstruction_bytes(options.batch)

    def seconds(self, options: AdaRound, probe: Probe) -> float:
        return probe.reconstructing(options.iterations, options.batch)

    def apply(self, options: AdaRound, bench: Bench, drawn: Drawn) -> None:
        objective = Objective(
            options.iterations,
            options.batch,
            options.learning_rate,
            regularization=options.regularization,
            warmup=options.warmup,
        )
        blocks, from_prefix = options.kind == "brecq", options.inputs == "quantized"
        with bench.student.float_inputs():
            reconstruct_each_unit(bench, drawn, options.kind, objective, blocks=blocks, from_prefix=from_prefix)


class _FineGrained(Stage[FineGrained]):
    """Optimizes the rounding block by block with the layers inside and the activation scales (FBR)."""

    def memory(self, options: FineGrained, probe: Probe) -> int:
        return probe.reconstruction_bytes(options.batch)

    def seconds(self, options: FineGrained, probe: Probe) -> float:
        reference = probe.seconds * options.iterations * options.batch
        return probe.reconstructing(options.iterations, options.batch) + reference

    def apply(self, options: FineGrained, bench: Bench, drawn: Drawn) -> None:
        observe(bench, drawn, LEAST_ERROR, "fbr")
        bench.student.quantize_inputs(True)
        objective = Objective(
            options.iterations,
            options.batch,
            options.learning_rate,
            options.scale_learning_rate if options.learn_ranges else 0.0,
            options.regularization,
            options.warmup,
            options.gamma,
            options.drop,
        )
        reconstruct_each_unit(bench, drawn, "fbr", objective)
        bench.student.quantize_inputs(options.learn_ranges)


STAGE = Kinds({Nearest: Stage(), AdaRound: _AdaRound(), FineGrained: _FineGrained()})
