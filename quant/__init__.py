"""Quantized diffusion models: calibrate, run on integer kernels, save, load, and say how faithful they are.

Importing this package registers its checkpoint format with diffusers, without importing diffusers or torch. Users
import `facsimile`, which does the same and offers the verbs."""

import quant.checkpoints.registration
import quant.engine.processor

quant.engine.processor.cap_onednn()  # before torch is imported: oneDNN reads its cap once
quant.checkpoints.registration.register()
