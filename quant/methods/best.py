"""What measured best of all stages together: shortcuts split, the time path precalculated, the most sensitive layers
lifted, progressive ranges for every step, and serial-to-parallel training, of the time tables too, on
the guided output.

From arXiv 2302.04304 (split shortcuts), 2412.06661 (time path, mixed precision, training) and 2311.06322 (ranges)."""

from contract.stages import (
    EveryStep,
    FineTuning,
    Precalculate,
    ProgressiveRanges,
    SensitiveBits,
    Stages,
    WeightScales,
)

STAGES = Stages(
    time_path=Precalculate(),
    bits=SensitiveBits(kind="greedy", lifted_bits=8, extra_bits=0.25),
    inputs=EveryStep(prompts=16),
    weight_scales=WeightScales(kind="mse"),
    ranges=ProgressiveRanges(prompts=16),
    fine_tuning=FineTuning(kind="serial_to_parallel", rounds=12, guided=True, time_tables=True),
    split_shortcuts=True,
    per_step=True,
)
