"""Quantized diffusion models: calibrate, run on integer kernels, save, load, and say how faithful they are.

Importing this package registers its checkpoint format with diffusers; `python -m quant` leaves that to its commands, so
that its help and its refusals do not wait for torch."""

import sys

import quant.engine.processor

quant.engine.processor.cap_onednn()  # before torch is imported: oneDNN reads its cap once

if sys.argv[:1] != ["-m"]:  # what it is while Python looks for the module that -m names
    import quant.checkpoints.backend
