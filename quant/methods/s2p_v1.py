"""S2P as first published: serial-to-parallel training, multi-timestep activation quantization, time information
precalculation and mixed precision.

Our reconstruction of "Efficiency Meets Fidelity: A Novel Quantization Framework for Stable Diffusion", arXiv 2412.06661
v1, whose code and details are not public."""

from contract.stages import (
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
    weight_scales=WeightScales(kind="mse"),
    ranges=ProgressiveRanges(prompts=16),
    fine_tuning=FineTuning(
        kind="serial_to_parallel", rounds=6, weight_learning_rate=8e-3, guided=True, time_tables=True
    ),
    split_shortcuts=True,
    per_step=True,
)
