"""Quantized diffusion models: calibrate, run on integer kernels, save, load, and say how faithful they are.

Importing this package registers its checkpoint format with diffusers."""

import quant.backend  # noqa: F401
