"""What a piece of work depends on, as keys and digests: when any of it changes, the work is done anew."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from quant.engine import native
from quant.engine.selection import default_engine
from quant.errors import ModelError

_PACKAGE = Path(__file__).parent
_WEIGHTS = {".safetensors", ".json", ".txt"}
_SOURCES = {".py", ".cpp", ".h"}


def key_of(parts: dict[str, Any]) -> str:
    """A key for these parts, JSON values all: sha256, hexadecimal."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, allow_nan=False).encode()).hexdigest()


def files_digest(files: Iterable[Path], root: Path) -> str:
    """sha256, hexadecimal, over the names below `root`, the sizes and the contents of files, whatever their order."""
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


@cache
def code_digest() -> str:
    """sha256 over the sources of this whole package. Which of them a number depends on is nobody's to remember: any
    change makes everything anew."""
    return files_digest((path for path in _PACKAGE.rglob("*") if path.suffix in _SOURCES and path.is_file()), _PACKAGE)


def weights_digest(source: str) -> str:
    """sha256 over the weights and configs of a model, a folder or a hub id in the local cache. Raises ModelError."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(source) if Path(source).is_dir() else Path(snapshot_download(source, local_files_only=True))
    except Exception as error:  # the hub's client raises several kinds
        raise ModelError(f"model {source} is neither a folder nor in the local hub cache: {error}") from error
    return files_digest((path for path in folder.rglob("*") if path.suffix in _WEIGHTS and path.is_file()), folder)


def machine(device: str) -> dict[str, str]:
    """The last bits of a picture depend on these."""
    engine = default_engine(device)
    return {
        "torch": str(torch.__version__),
        "diffusers": version("diffusers"),
        "device": device,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "tiles": "AMX" if native.has_tiles() else "none",
        "threads": str(torch.get_num_threads()),
        "engine": f"{engine.name}, {engine.passes.name} passes",
    }
