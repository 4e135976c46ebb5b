"""EDA-DM: temporal distribution alignment calibration picks the inputs, fine-grained block reconstruction fits rounding
and activation scales together, one range for all steps.

Xuewen Liu et al., "EDA-DM: Enhanced Distribution Alignment for Post-Training Quantization of Diffusion Models", arXiv
2401.04585."""

from contract.stages import FineGrained, Stages, Tdac, WeightScales

STAGES = Stages(
    inputs=Tdac(diversity_weight=1.2),
    weight_scales=WeightScales(kind="mse"),
    rounding=FineGrained(gamma=0.8, drop=0.5),
    split_shortcuts=True,
)
