"""S2P as revised: serial-to-parallel training with inter-layer distillation and selective freezing, multi-timestep
activation quantization and time information precalculation; with its mixed precision, of single inputs at single steps.

Our reconstruction of "Efficiency Meets Fidelity: A Novel Quantization Framework for Stable Diffusion", arXiv 2412.06661
v2, whose code and details are not public."""

from contract.stages import (
    FineTuning,
    Precalculate,
    ProgressiveRanges,
    RelaxedInputs,
    Stages,
    WeightScales,
)

STAGES = Stages(
    time_path=Precalculate(),
    weight_scales=WeightScales(kind="mse"),
    ranges=ProgressiveRanges(prompts=16),
    bits_over_time=RelaxedInputs(share=0.02, prompts=2),
    fine_tuning=FineTuning(
        kind="serial_to_parallel",
        rounds=6,
        weight_learning_rate=8e-3,
        guided=True,
        time_tables=True,
        feature_weight=0.1,
        freezing="plateau",
        validation_prompts=8,
    ),
    split_shortcuts=True,
    per_step=True,
)
