"""What measured best of all stages together: shortcuts split, the time path precalculated, the most sensitive layers
lifted, progressive ranges for every step, floating point where the picture notices most that an input is quantized, and
serial-to-parallel training with inter-layer distillation and selective freezing, of the time tables too, on the guided
output.

From arXiv 2302.04304 (split shortcuts), 2412.06661 (time path, mixed precision, training) and 2311.06322 (ranges, more
activation bits where they matter)."""

from contract.stages import (
    FineTuning,
    Precalculate,
    ProgressiveRanges,
    RelaxedInputs,
    SensitiveBits,
    Stages,
    WeightScales,
)

STAGES = Stages(
    time_path=Precalculate(),
    bits=SensitiveBits(kind="greedy", lifted_bits=8, extra_bits=0.25),
    weight_scales=WeightScales(kind="mse"),
    ranges=ProgressiveRanges(prompts=16),
    bits_over_time=RelaxedInputs(share=0.04),
    fine_tuning=FineTuning(
        kind="serial_to_parallel",
        rounds=12,
        weight_learning_rate=8e-3,
        guided=True,
        time_tables=True,
        feature_weight=0.1,
        freezing="plateau",
    ),
    split_shortcuts=True,
    per_step=True,
)
