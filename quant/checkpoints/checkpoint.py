"""Quantized checkpoints: a diffusers folder, a card, and a digest over both names and contents of the files."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from diffusers import DiffusionPipeline
from pydantic import ValidationError
from torch import nn

from contract.card import Card
from quant.checkpoints.backend import FacsimileConfig, FacsimileQuantizer
from quant.checkpoints.layout import Layout
from quant.errors import CheckpointError
from quant.identity import files_digest

CARD = "card.json"


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


def read_card(folder: Path) -> Card:
    """The card of a checkpoint. Raises CheckpointError when it is missing or malformed."""
    try:
        return Card.model_validate_json((folder / CARD).read_bytes(), extra="ignore")
    except (OSError, ValidationError) as error:
        raise CheckpointError(f"card of {folder}: {error}") from error


def verify(folder: Path) -> Card:
    """The card, after checking that the files are those it speaks of. Raises CheckpointError."""
    card = read_card(folder)
    found = digest(folder)
    if found != card.digest:
        raise CheckpointError(f"checkpoint {folder.name}: the files' digest is {found}, the card says {card.digest}")
    return card


def save_checkpoint(pipeline: DiffusionPipeline, denoiser: nn.Module, layout: Layout, folder: Path) -> None:
    """Writes a pipeline whose denoiser holds quantized layers to `folder`, in a form that diffusers loads.

    What stays in floating point is stored in float16; the denoiser is changed accordingly."""
    config = FacsimileConfig(**asdict(layout))
    denoiser.register_to_config(quantization_config=config)  # type: ignore[operator]
    denoiser.hf_quantizer = FacsimileQuantizer(config, pre_quantized=True)  # type: ignore[assignment]
    for parameter in denoiser.parameters():
        parameter.data = parameter.data.half()
    for part in pipeline.components.values():
        if isinstance(part, nn.Module) and part is not denoiser:
            part.half()
    save_pipeline(pipeline, folder)


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
