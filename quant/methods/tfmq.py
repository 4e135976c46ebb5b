"""TFMQ-DM: the layers that carry the timestep are reconstructed together (temporal information aware reconstruction),
and activations have a range for every step (finite set calibration).

Yushi Huang et al., "TFMQ-DM: Temporal Feature Maintenance Quantization for Diffusion Models", CVPR 2024, arXiv
2311.16503."""

from contract.stages import AdaRound, EveryStep, ObservedRanges, Stages, Tiar, WeightScales

STAGES = Stages(
    time_path=Tiar(),
    inputs=EveryStep(prompts=10),
    weight_scales=WeightScales(kind="mse"),
    rounding=AdaRound(kind="brecq"),
    ranges=ObservedRanges(kind="ema", observed="quantized_weights"),
    per_step=True,
)
