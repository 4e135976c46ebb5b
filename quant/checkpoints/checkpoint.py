"""Quantized checkpoints: a diffusers folder, a card, and a digest over both names and contents of the files."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from torch import nn

from contract.card import Card
from quant.checkpoints.backend import FacsimileConfig, FacsimileQuantizer
from quant.checkpoints.card_file import CARD, read_card
from quant.checkpoints.layout import Layout
from quant.errors import CheckpointError
from quant.identity import files_digest


def digest(folder: Path) -> str:
    """sha256, hexadecimal, over the sorted relative names and contents of all files but the card.

    Raises CheckpointError when the folder holds a link or a file that could run code when loaded."""
    files = []
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise CheckpointError(f"{path} is a link: a checkpoint holds plain files only")
        if path.is_dir() or path == folder / CARD:
            continue
        if path.suffix.lower() not in {".json", ".safetensors", ".txt", ".md"}:
            raise CheckpointError(f"{path.name} does not belong in a checkpoint: json, safetensors, txt and md do")
        files.append(path)
    return files_digest(files, folder)


def verify(folder: Path) -> Card:
    """The card, after checking that the files are those it speaks of. Raises CheckpointError."""
    card = read_card(folder)
    found = digest(folder)
    if found != card.digest:
        raise CheckpointError(f"checkpoint {folder.name}: the files' digest is {found}, the card says {card.digest}")
    return card


def save_checkpoint(pipeline: DiffusionPipeline, denoiser: nn.Module, layout: Layout, folder: Path) -> None:
    """Writes a pipeline whose denoiser holds quantized layers to `folder`, in a form that diffusers loads.

    What stays in floating point is stored in float16; the pipeline keeps its own dtypes. Its denoiser is signed."""
    sign(denoiser, layout)
    tensors = _floating(pipeline, denoiser)
    kept = [tensor.data for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.data = tensor.data.half()
        save_pipeline(pipeline, folder)
    finally:
        for tensor, data in zip(tensors, kept, strict=True):
            tensor.data = data


def sign(denoiser: nn.Module, layout: Layout) -> None:
    """Has a denoiser say, as one that was loaded does, that it is quantized and how it is laid out; in place."""
    config = FacsimileConfig(**asdict(layout))
    denoiser.register_to_config(quantization_config=config)  # type: ignore[operator]
    denoiser.hf_quantizer = FacsimileQuantizer(config, pre_quantized=True)  # type: ignore[assignment]


def round_as_stored(pipeline: DiffusionPipeline, denoiser: nn.Module) -> None:
    """Gives what stays in floating point the values that it has after saving and loading, in place, in its dtype."""
    for tensor in _floating(pipeline, denoiser):
        tensor.data = tensor.data.half().to(tensor.dtype)


def layout_of(denoiser: nn.Module) -> Layout | None:
    """How a quantized denoiser is laid out, loaded or made here; None for one in floating point."""
    quantizer = getattr(denoiser, "hf_quantizer", None)
    return quantizer.quantization_config.layout if isinstance(quantizer, FacsimileQuantizer) else None


def _floating(pipeline: DiffusionPipeline, denoiser: nn.Module) -> list[torch.Tensor]:
    """The tensors that are stored in float16: of the denoiser its parameters, since the buffers of our layers keep
    their dtype; of the other parts all that float."""
    parts = [part for part in pipeline.components.values() if isinstance(part, nn.Module) and part is not denoiser]
    others = [tensor for part in parts for tensor in (*part.parameters(), *part.buffers())]
    return [tensor for tensor in (*denoiser.parameters(), *others) if tensor.is_floating_point()]


def save_pipeline(pipeline: DiffusionPipeline, folder: Path) -> None:
    """Writes a float16 pipeline so that loading it without naming a dtype gives one dtype throughout: diffusers takes
    float32 then, while transformers follows the dtype in a component's config, which is therefore set to float32."""
    pipeline.save_pretrained(folder, safe_serialization=True)
    for path in (folder / "model_index.json", *folder.glob("*/config.json")):
        config = json.loads(path.read_text(encoding="utf-8"))
        config.pop("_name_or_path", None)  # where the reference lay on this machine
        if "dtype" in config:
            config["dtype"] = "float32"
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def denoiser_bytes(folder: Path, component: str) -> int:
    """Bytes of a denoiser's weight files."""
    return sum(path.stat().st_size for path in (folder / component).glob("*.safetensors"))
