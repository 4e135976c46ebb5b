"""`facsimile.save`: a quantized pipeline into a folder."""

from __future__ import annotations

import os
from pathlib import Path

from diffusers import DiffusionPipeline

from quant.checkpoints.card_file import CARD
from quant.checkpoints.checkpoint import layout_of, save_checkpoint
from quant.checkpoints.output_folder import make_writable
from quant.checkpoints.pipelines import denoiser_of
from quant.errors import CheckpointError


def save(pipeline: DiffusionPipeline, folder: str | os.PathLike[str]) -> None:
    """Writes a quantized pipeline as a diffusers folder. `load` and, after `import facsimile`,
    `DiffusionPipeline.from_pretrained` load it.

    Codes are stored as integers, what is not quantized in float16. The folder gets no card: a card holds a measured
    report, which the command `facsimile quantize` and the service make. A card that is there already is removed, since
    it speaks of other files.

    Args:
        pipeline: what `quantize` or `load` gave. It is not changed.
        folder: made where it is not there.

    Raises:
        CheckpointError: the pipeline is not quantized; `pipeline.save_pretrained` writes such a one.
        ModelError: the pipeline belongs to no family.
        OutputError: the folder cannot be written."""
    denoiser = denoiser_of(pipeline)
    layout = layout_of(denoiser)
    if layout is None:
        raise CheckpointError("this pipeline is not quantized: pipeline.save_pretrained(folder) writes it")
    place = make_writable(Path(folder))
    (place / CARD).unlink(missing_ok=True)
    save_checkpoint(pipeline, denoiser, layout, place)
