"""PTQ4DM: calibration inputs of the denoising process at normally distributed timesteps, then block reconstruction with
QDrop, one activation range for all steps.

Yuzhang Shang et al., "Post-training Quantization on Diffusion Models", CVPR 2023, arXiv 2211.15736."""

from contract.stages import FineGrained, NormalSteps, Stages, WeightScales

STAGES = Stages(
    inputs=NormalSteps(samples=256),
    weight_scales=WeightScales(kind="mse"),
    rounding=FineGrained(gamma=0.0, drop=0.5, regularization=0.01),
)
