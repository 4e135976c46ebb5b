"""What can go wrong in `quant`, as a tree. `code` is stable and travels with a failed job; messages are for users.

QuantError
├── ModelError          a model's weights are missing, unreadable, or of another family
├── CheckpointError     a quantized checkpoint is missing, truncated, tampered with, or mis-shaped
├── RecipeMismatch      a recipe that this model or this machine cannot follow
├── PromptSetError      a prompt set that does not exist, is empty or malformed
├── SamplingError       sampling settings outside what the model or the variant allows
│   ├── PromptTooLong       a prompt that a text encoder would cut, where that is not wanted
│   └── TimestepError       a timestep that no table can answer for
├── InvalidPicture      the output is not finite, or constant
├── BackboneMissing     a metric's feature model is not at hand
├── PictureMismatch     pictures of sizes or counts that cannot be compared
├── CalibrationDiverged a calibration whose loss is no longer a number
├── NotEnoughMemory     a calibration that needs more memory than there is
├── OutputError         a folder for results that cannot be written
├── EvaluationError     an evaluation that cannot be made as asked
├── CaptureError        a quantized denoiser that is to be traced or exported
└── KernelError         the integer kernels fail their self-test on this machine
"""

from __future__ import annotations


class QuantError(Exception):
    """Base of all errors of the library."""

    code = "quantization-failed"


class ModelError(QuantError):
    code = "model-unusable"


class CheckpointError(QuantError):
    code = "variant-unusable"


class RecipeMismatch(QuantError):
    code = "invalid-recipe"


class PromptSetError(QuantError):
    code = "invalid-prompt-set"


class SamplingError(QuantError):
    code = "invalid-sampling"


class PromptTooLong(SamplingError):
    code = "prompt-too-long"


class TimestepError(SamplingError):
    pass


class InvalidPicture(QuantError):
    code = "invalid-output"


class BackboneMissing(QuantError):
    code = "backbone-missing"


class PictureMismatch(QuantError):
    code = "invalid-pictures"


class OutputError(QuantError):
    code = "storage-unusable"


class EvaluationError(QuantError):
    code = "invalid-evaluation"


class KernelError(QuantError):
    code = "kernel-unavailable"


class CaptureError(QuantError, RuntimeError):
    code = "not-exportable"


class CalibrationDiverged(QuantError):
    code = "calibration-diverged"


class NotEnoughMemory(QuantError):
    code = "not-enough-memory"


def first_line(error: BaseException) -> str:
    """The first line of a message, at most 200 characters of it."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
