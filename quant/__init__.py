"""Quantized diffusion models: calibrate, run on integer kernels, save, load, and say how faithful they are.

Importing this package registers its checkpoint format with diffusers."""

import quant.processor

quant.processor.cap_onednn()  # before torch is imported: oneDNN reads its cap once

import quant.backend  # noqa: E402
