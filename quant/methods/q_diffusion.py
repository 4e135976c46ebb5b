"""Q-Diffusion: calibration inputs at a uniform stride of the steps, split shortcuts, BRECQ reconstruction and learned
activation ranges shared by all steps.

Xiuyu Li et al., "Q-Diffusion: Quantizing Diffusion Models", ICCV 2023, arXiv 2302.04304."""

from contract.stages import AdaRound, LearnedRanges, Stages, UniformSteps, WeightScales

STAGES = Stages(
    inputs=UniformSteps(steps=12, prompts_per_step=21),
    weight_scales=WeightScales(kind="mse"),
    rounding=AdaRound(kind="brecq"),
    ranges=LearnedRanges(),
    split_shortcuts=True,
)
