"""PCR: a range for every step, calibrated progressively on what the quantized steps before it produce, and more
activation bits in the steps that the picture is most sensitive to.

Siao Tang et al., "Post-training Quantization with Progressive Calibration and Activation Relaxing for Text-to-Image
Diffusion Models", ECCV 2024, arXiv 2311.06322."""

from contract.stages import EveryStep, ProgressiveRanges, RelaxedWindow, Stages

STAGES = Stages(
    inputs=EveryStep(prompts=16),
    ranges=ProgressiveRanges(prompts=32),
    bits_over_time=RelaxedWindow(start=0.8, end=1.0, bits=16),
    per_step=True,
)
