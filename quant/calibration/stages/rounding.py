"""Stage: whether every weight is rounded up or down."""

from __future__ import annotations

from contract.stages import FineGrained, Nearest
from quant.calibration import memory
from quant.calibration.reconstruction.each_unit import reconstruct_each_unit
from quant.calibration.reconstruction.reconstruct import Objective
from quant.calibration.stages import ranges
from quant.calibration.workbench import Workbench


def apply(bench: Workbench) -> None:
    """Rounds to the nearest level, or optimizes the rounding layer by layer (AdaRound), block by block (BRECQ), or
    block by block with the layers inside and the activation scales (FBR)."""
    options = bench.stages.rounding
    if isinstance(options, Nearest):
        return
    if isinstance(options, FineGrained):
        ranges.initial(bench, stage="fbr")
        bench.quantize_inputs(True)
        reconstruct_each_unit(bench, "fbr", _fine_grained(options), memory.halted_batches(bench))
        bench.quantize_inputs(options.learn_ranges)
        return
    objective = Objective(
        options.iterations,
        options.batch,
        options.learning_rate,
        regularization=options.regularization,
        warmup=options.warmup,
    )
    with bench.float_inputs():
        reconstruct_each_unit(
            bench,
            options.kind,
            objective,
            memory.halted_batches(bench),
            blocks=options.kind == "brecq",
            from_prefix=options.inputs == "quantized",
        )


def _fine_grained(options: FineGrained) -> Objective:
    return Objective(
        options.iterations,
        options.batch,
        options.learning_rate,
        options.scale_learning_rate if options.learn_ranges else 0.0,
        options.regularization,
        options.warmup,
        options.gamma,
        options.drop,
    )
