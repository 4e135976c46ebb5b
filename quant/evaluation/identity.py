"""What pictures and scores depend on, as keys of the cache: when any of it changes, they are made anew."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from quant.errors import ModelError
from quant.generation import Sampling
from quant.kernels import native
from quant.kernels.selection import default_engine

_PACKAGE = Path(__file__).parents[1]
_WEIGHTS = {".safetensors", ".json", ".txt"}
_SOURCES = {".py", ".cpp", ".h"}

SAMPLING = ("generation.py", "families")
"""The code that draws with any pipeline."""

ENGINE = (
    "backend.py",
    "conversion.py",
    "fusion",
    "kernels",
    "layout.py",
    "modules",
    "quantizers",
    "tensor",
    "timesteps.py",
)
"""The code that runs quantized denoisers."""

CALIBRATING = (
    *SAMPLING,
    "calibration",
    "fake_quantization",
    "kernels/native/source/fake_quantize.cpp",
    "layout.py",
    "methods",
    "observers",
    "quantizers",
    "reconstruction",
    "stages",
    "tuning",
)
"""The code that finds quantization parameters."""

MEASURING = ("backbones", "feature_sets.py", "metrics", "networks", "pair.py", "evaluation/measurement.py")
"""The code that scores pictures."""


def key_of(parts: dict[str, Any]) -> str:
    """A key for these parts, JSON values all: sha256, hexadecimal."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, allow_nan=False).encode()).hexdigest()


@cache
def code_digest(parts: tuple[str, ...]) -> str:
    """sha256 over source files of this package, given as files and folders."""
    paths = (path for part in parts for path in (_PACKAGE / part, *(_PACKAGE / part).rglob("*")))
    return _digest(sorted(path for path in paths if path.suffix in _SOURCES and path.is_file()), _PACKAGE)


def weights_digest(source: str) -> str:
    """sha256 over the weights and configs of a model, a folder or a hub id in the local cache. Raises ModelError."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(source) if Path(source).is_dir() else Path(snapshot_download(source, local_files_only=True))
    except Exception as error:  # the hub's client raises several kinds
        raise ModelError(f"model {source} is neither a folder nor in the local hub cache: {error}") from error
    return _digest(sorted(path for path in folder.rglob("*") if path.suffix in _WEIGHTS and path.is_file()), folder)


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


def sampling_settings(sampling: Sampling) -> dict[str, Any]:
    """The settings that all pictures of an evaluation share."""
    settings = asdict(sampling)
    return {name: value for name, value in settings.items() if name not in ("prompt", "seed", "num_images")}


def _digest(paths: list[Path], root: Path) -> str:
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
