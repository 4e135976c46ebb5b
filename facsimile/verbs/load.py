"""`facsimile.load`: a pipeline from a folder."""

from __future__ import annotations

import os
from pathlib import Path

from diffusers import DiffusionPipeline

from quant.checkpoints.pipelines import load_folder


def load(folder: str | os.PathLike[str], dtype: str = "float32") -> DiffusionPipeline:
    """The pipeline in a diffusers folder, quantized or not.

    `DiffusionPipeline.from_pretrained` loads the same. This verb also holds the files against the card, where the
    folder has one, and explains what is wrong in a sentence.

    Args:
        folder: what `save`, `facsimile quantize`, a calibration of the service, or diffusers wrote.
        dtype: what is not quantized computes in it: `float32`, `bfloat16`, `float16`, or `auto`.

    Returns:
        A pipeline without gradients and without a progress bar.

    Raises:
        CheckpointError: a quantized checkpoint is damaged, or is not the one that its card speaks of.
        ModelError: the folder holds no pipeline, or one of no family."""
    return load_folder(Path(folder), dtype)


def opened(pipeline: DiffusionPipeline | str | os.PathLike[str]) -> DiffusionPipeline:
    """The pipeline itself, or the one in a folder. Raises what `load` raises."""
    return load(pipeline) if isinstance(pipeline, str | os.PathLike) else pipeline
